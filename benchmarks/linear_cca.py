"""What the simplest model reaches on a data set: linear canonical correlation analysis, to compare trained ones with.

An image is the mean of its regions, a caption the TF-IDF of its words. Fitted on the train split; dimension, shrinkage
and power of the correlations are chosen on its last 500 images; test, or dev where there is no test split, is looked at
once, for the result.
`python benchmarks/linear_cca.py --dataset f8k_regions [--data-root /data]`
"""

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import linalg, sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from uwml_lib.config import ExperimentConfig, preset
from uwml_lib.datasets import PrecomputedDataset, evaluation_split, fingerprint, load_split, prepare_data, tokenize
from uwml_lib.evaluation import RANKS, RECALL_AT, retrieval_metrics, rsum_by_image
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import write_json

HELD_OUT = 500  # train images that the settings are chosen on
RAREST = 4  # captions that a word must be in
MOST_WORDS = 4000  # of the vocabulary, to bound the work
GRID = {
    "shrinkage": (0.1, 0.3, 1.0, 3.0, 10.0),
    "dimension": (32, 64, 128, 256),
    "power": (0.0, 0.25, 0.5, 1.0, 2.0, 4.0),
}


def fit_cca(a: np.ndarray, b: np.ndarray, c: np.ndarray, shrinkage: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return projections of x (p, k) and of y (q, k), and their correlations (k,), from the largest down.

    a (p, p), b (q, q), c (p, q): covariances of x, of y, and of the two. shrinkage: the share of the mean variance that
    is added to the diagonals of a and b. Closed form (Hotelling 1936): with a = L L', b = M M' and the singular value
    decomposition U S V' of L^-1 c M'^-1, the projections are L'^-1 U and M'^-1 V, the correlations S.
    """
    low_a, low_b = (linalg.cholesky(z + shrinkage * np.trace(z) / len(z) * np.eye(len(z)), lower=True) for z in (a, b))
    whitened = linalg.solve_triangular(low_b, linalg.solve_triangular(low_a, c, lower=True).T, lower=True).T
    u, correlations, v = linalg.svd(whitened, full_matrices=False)
    project_x, project_y = (
        linalg.solve_triangular(low, vectors, lower=True, trans="T") for low, vectors in ((low_a, u), (low_b, v.T))
    )
    return project_x, project_y, correlations


class LinearCCA:
    """Images x (n, p) and the words of their captions y (n * captions_per_image, q), sparse, in one space."""

    def __init__(self, x: np.ndarray, y: sparse.csr_array, shrinkage: float) -> None:
        self.means = (x.mean(axis=0), y.mean(axis=0))
        x = x - self.means[0]
        a = x.T @ x / len(x)
        b = (y.T @ y / y.shape[0]).toarray() - np.outer(self.means[1], self.means[1])
        c = (y.T @ x.repeat(y.shape[0] // len(x), axis=0)).T / y.shape[0]
        *self.projections, self.correlations = fit_cca(a, b, c, shrinkage)

    def scores(self, x: np.ndarray, y: sparse.csr_array, dimension: int, power: float) -> np.ndarray:
        """Cosines (n_images, n_captions) in the first `dimension` dimensions, each scaled by a power of its
        correlation (Gong et al. 2014 use 4).
        """
        scale = self.correlations[:dimension] ** power
        projections = (projection[:, :dimension] * scale for projection in self.projections)
        both = (z @ w - mean @ w for z, mean, w in zip((x, y), self.means, projections, strict=True))
        one, other = (z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12) for z in both)
        return one @ other.T


def bag_of_words(captions: Sequence[str]) -> TfidfVectorizer:
    """TF-IDF fitted on captions, over their most frequent words."""
    return TfidfVectorizer(analyzer=tokenize, min_df=RAREST, max_features=MOST_WORDS, sublinear_tf=True).fit(captions)


def pooled(dataset: PrecomputedDataset, block: int = 1024) -> np.ndarray:
    """The mean region of every image, (n_images, dim) float64."""
    starts = range(0, len(dataset.features), block)
    return np.concatenate([dataset.images(start, start + block).double().mean(dim=1).numpy() for start in starts])


def choose(images: np.ndarray, captions: Sequence[str], captions_per_image: int) -> dict[str, float]:
    """The settings of GRID with the highest rsum on the last HELD_OUT images, fitted on those before; and that rsum."""
    split = len(images) - HELD_OUT
    fitted, held_out = captions[: split * captions_per_image], captions[split * captions_per_image :]
    words = bag_of_words(fitted)
    y, y_held_out = words.transform(fitted), words.transform(held_out)
    best: dict[str, float] = {"held_out_rsum": -1.0}
    for shrinkage in GRID["shrinkage"]:
        model = LinearCCA(images[:split], y, shrinkage)
        for dimension, power in itertools.product(GRID["dimension"], GRID["power"]):
            scores = model.scores(images[split:], y_held_out, dimension, power)
            rsum = retrieval_metrics(scores, captions_per_image)["rsum"]
            if rsum > best["held_out_rsum"]:
                best = {"shrinkage": shrinkage, "dimension": dimension, "power": power, "held_out_rsum": rsum}
    return best


def measure(config: ExperimentConfig) -> dict[str, Any]:
    """Choose, fit on all of train, and rank the split that is reported. Raises UWMLError for too few images."""
    started = time.monotonic()
    config = replace(config, selection_images=0)  # it chooses by images of its own, and is then fitted on all
    prepare_data(config)
    split = evaluation_split(config.data_folder)
    train, reported = (load_split(config, name) for name in ("train", split))
    if len(train.features) < 2 * HELD_OUT:
        raise UWMLError(
            f"{config.data_folder}: found {len(train.features)} training images, expected at least {2 * HELD_OUT}: "
            f"the settings are chosen on {HELD_OUT} of them"
        )
    images = pooled(train)
    chosen = choose(images, train.captions, train.captions_per_image)
    words = bag_of_words(train.captions)
    model = LinearCCA(images, words.transform(train.captions), chosen["shrinkage"])
    scores = model.scores(
        pooled(reported), words.transform(reported.captions), int(chosen["dimension"]), chosen["power"]
    )
    metrics = retrieval_metrics(scores, reported.captions_per_image, return_ranks=True)
    ranks = [metrics.pop(name) for name in RANKS]
    return {
        "model": "linear CCA", "dataset": config.dataset, "split": split, "data": fingerprint(config.data_folder),
        "images": {"train": len(images), "held_out": HELD_OUT, split: len(reported.features)},
        "captions_per_image": reported.captions_per_image, "words": len(words.vocabulary_), "rarest_word": RAREST,
        "grid": GRID, "chosen": chosen,
        "metrics": metrics, "rsum_by_image": rsum_by_image(*ranks).tolist(), "seconds": time.monotonic() - started,
    }  # fmt: skip


def table_line(result: dict[str, Any]) -> str:
    """One line of a Markdown table: recalls of both directions, and rsum."""
    names = [*(f"{way}_recall_at_{k}" for way in ("image_to_text", "text_to_image") for k in RECALL_AT), "rsum"]
    cells = " | ".join(f"{result['metrics'][name]:.1f}" for name in names)
    return f"| {result['model']} ({result['dataset']}, {result['split']}) | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="flickr8k", help="folder name of the data set")
    parser.add_argument("--data-root", default="", help="folder that holds the data set's folder (data)")
    parser.add_argument("--output", type=Path, help="JSON file for the result and every setting")
    options = parser.parse_args()
    try:
        result = measure(preset(options.dataset, data_root=options.data_root))
        if options.output:
            write_json(options.output, result)
    except UWMLError as error:
        sys.exit(str(error))
    print(table_line(result))


if __name__ == "__main__":
    main()
