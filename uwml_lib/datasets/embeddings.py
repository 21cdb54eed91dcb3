"""Two matrices of embeddings, one of images and one of captions: yours from two files, or an example."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from uwml_lib.datasets.batches import finite_float32
from uwml_lib.datasets.precomputed import PrecomputedDataset
from uwml_lib.support.errors import expect
from uwml_lib.support.files import load_array


class Embeddings(NamedTuple):
    """Images (n, dim) and captions (n * captions_per_image, other dim), float32; caption k is of image k // that."""

    images: Tensor
    captions: Tensor
    captions_per_image: int

    def part(self, start: int, stop: int) -> "Embeddings":
        """The images start to stop - 1, with their captions."""
        K = self.captions_per_image
        return Embeddings(self.images[start:stop], self.captions[start * K : stop * K], K)

    def standardised(self, by: "Embeddings") -> "Embeddings":
        """Every column less its mean and divided by its standard deviation, both of `by`; a constant one becomes 0."""
        sides = zip((self.images, self.captions), (by.images, by.captions), strict=True)
        images, captions = ((x - y.mean(dim=0)) / (y.std(dim=0) + 1e-6) for x, y in sides)
        return Embeddings(images, captions, self.captions_per_image)


def load_embeddings(images: Path | str, captions: Path | str) -> Embeddings:
    """Read two .npy files, (n, dim) and (n * captions_per_image, other dim), row by row an image or a caption.

    Captions follow their images: with two rows of captions an image, rows 0 and 1 are of image 0. Raises UWMLError,
    naming the file, for what is no matrix of finite numbers, and for counts that do not fit.
    """
    paths = Path(images), Path(captions)
    rows = [finite_float32(np.array(load_array(path, 2)), f"{path}: row") for path in paths]
    n_images, n_captions = map(len, rows)
    expected = f"a multiple of the {n_images:,} of {images}"
    expect(n_captions % n_images == 0, captions, f"{n_captions:,} rows", expected)
    return Embeddings(rows[0], rows[1], n_captions // n_images)


def example_embeddings(*splits: PrecomputedDataset, dim: int = 64) -> list[Embeddings]:
    """Embeddings that know nothing of each other, for each split of a data set: the mean of an image's regions, and the
    `caption_vectors` of its captions, fitted to the first split alone.
    """
    captions = caption_vectors(*(split.captions for split in splits), dim=dim)
    return [
        Embeddings(_mean_regions(x), torch.from_numpy(y), x.captions_per_image)
        for x, y in zip(splits, captions, strict=True)
    ]


def _mean_regions(dataset: PrecomputedDataset) -> Tensor:
    every = range(len(dataset.features))
    return dataset.images(0, len(every)).sum(dim=1) / dataset.counts(every)[:, None]


def caption_vectors(*parts: Sequence[str], dim: int = 64) -> list[np.ndarray]:
    """Captions' words weighted by TF-IDF and reduced to `dim` numbers, or as many as there are words (latent semantic
    analysis, Deerwester et al. 1990), fitted to the first part: (n, dim) float32 for each.

    Rounded to four decimals, as the last bits depend on the number of threads.
    """
    from sklearn.decomposition import TruncatedSVD  # slow to import, and only few need it
    from sklearn.feature_extraction.text import TfidfVectorizer

    weighted = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True).fit(parts[0])
    words = [weighted.transform(part) for part in parts]
    reduced = TruncatedSVD(min(dim, words[0].shape[1]), random_state=0).fit(words[0])
    return [reduced.transform(part).round(4).astype(np.float32) for part in words]
