"""Retrieval metrics, and the score matrix of a whole split in bounded memory."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from uwml_lib.config import Precision
from uwml_lib.datasets.precomputed import PrecomputedDataset
from uwml_lib.distributed import process_count
from uwml_lib.models.matcher import Matcher
from uwml_lib.progress import progress

RECALL_AT = (1, 5, 10)
METRICS = (
    *(f"image_to_text_recall_at_{k}" for k in RECALL_AT),
    "image_to_text_median_rank",
    "image_to_text_mean_rank",
    *(f"text_to_image_recall_at_{k}" for k in RECALL_AT),
    "text_to_image_median_rank",
    "text_to_image_mean_rank",
    "rsum",
)
RANKS = ("image_to_text_ranks", "text_to_image_ranks")


def retrieval_metrics(
    scores: Tensor | np.ndarray, captions_per_image: int = 5, return_ranks: bool = False
) -> dict[str, Any]:
    """Return recalls in percent, median and mean rank of both directions, and rsum, the sum of the six recalls.

    scores: (n_images, n_images * captions_per_image), image-major. An image asks for the best ranked of its captions,
    a caption for its image. Ties count against us: a wrong item with the true one's score is ranked before it, so a
    model that gives every pair the same score is not rewarded. Median rank is floor(median) + 1 and mean rank is
    mean + 1 of the 0-based ranks, as in the released code. With `return_ranks` the dict also holds the 0-based
    `image_to_text_ranks` (n_images,) and `text_to_image_ranks` (n_captions,). Raises ValueError for a matrix of
    another shape or with NaN.
    """
    scores = torch.as_tensor(scores)
    if not scores.is_floating_point():
        scores = scores.cpu().double()  # not every device has float64
    n_images, n_captions = scores.shape if scores.ndim == 2 else (0, 0)
    if n_images == 0 or captions_per_image < 1 or n_captions != n_images * captions_per_image:
        raise ValueError(
            f"scores: found shape {tuple(scores.shape)}, expected (n_images, n_images * captions_per_image) with "
            f"captions_per_image = {captions_per_image}"
        )
    ranks = dict(zip(("image_to_text", "text_to_image"), _ranks(scores, captions_per_image), strict=True))
    metrics: dict[str, Any] = {}
    for name, found in ranks.items():
        values = found.cpu().numpy()
        for k in RECALL_AT:
            metrics[f"{name}_recall_at_{k}"] = 100.0 * float((values < k).mean())
        metrics[f"{name}_median_rank"] = float(np.floor(np.median(values)) + 1)
        metrics[f"{name}_mean_rank"] = float(values.mean() + 1)
    metrics["rsum"] = sum(metrics[f"{name}_recall_at_{k}"] for name in ranks for k in RECALL_AT)
    if return_ranks:
        metrics |= {f"{name}_ranks": values.cpu().numpy() for name, values in ranks.items()}
    return metrics


def _ranks(scores: Tensor, captions_per_image: int, block: int = 128) -> tuple[Tensor, Tensor]:
    """Return the 0-based ranks of the images' best captions and of the captions' images: how many wrong items score at
    least as high. Done for `block` images at once, as torch counts with eight bytes a pair.
    """
    images, captions = (torch.arange(size, device=scores.device) for size in scores.shape)
    image_of = captions // captions_per_image
    true = scores[image_of, captions]
    best_true = true.view(-1, captions_per_image).amax(dim=1)
    image_to_text, text_to_image = torch.zeros_like(images), torch.zeros_like(captions)
    for rows in images.split(block):
        block_scores = scores[rows[0] : rows[-1] + 1]
        if bool(block_scores.isnan().any()):
            raise ValueError("scores: found NaN, expected numbers that can be ranked")
        wrong = image_of != rows[:, None]
        image_to_text[rows] = ((block_scores >= best_true[rows, None]) & wrong).sum(dim=1)
        text_to_image += ((block_scores >= true) & wrong).sum(dim=0)
    return image_to_text, text_to_image


def fold_metrics(
    scores: Iterable[Tensor], captions_per_image: int = 5, return_ranks: bool = False
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the mean of `retrieval_metrics` over folds, and those of every fold; ranks are put one after the other.

    scores: of every fold alone, as MSCOCO's 1K numbers are: five matrices of (1000, 5000).
    """
    folds = [retrieval_metrics(fold, captions_per_image, return_ranks) for fold in scores]
    mean: dict[str, Any] = {name: float(np.mean([fold[name] for fold in folds])) for name in METRICS}
    if return_ranks:
        mean |= {name: np.concatenate([fold[name] for fold in folds]) for name in RANKS}
    return mean, folds


def released_lines(mean: Mapping[str, float], folds: Sequence[Mapping[str, float]] = ()) -> str:
    """Say metrics in the lines of the released evaluation, for comparing with its logs; folds are listed one by one.

    Behind the recalls stand median and mean rank. The release's summary of folds is made of the wrong columns: it takes
    "rsum" for six times the average image-to-text recall. Here the columns are right.
    """
    sides = {"i2t": "image_to_text", "t2i": "text_to_image"}
    columns = [*(f"recall_at_{k}" for k in RECALL_AT), "median_rank", "mean_rank"]

    def row(metrics: Mapping[str, float], side: str, separator: str) -> str:
        return separator.join(f"{metrics[f'{side}_{column}']:.1f}" for column in columns)

    def average(metrics: Mapping[str, float], side: str) -> float:
        return sum(metrics[f"{side}_recall_at_{k}"] for k in RECALL_AT) / len(RECALL_AT)

    lines = []
    for fold in folds:
        lines += [f"Image to text: {row(fold, sides['i2t'], ', ')}", f"Text to image: {row(fold, sides['t2i'], ', ')}"]
        averages = f"ar: {average(fold, sides['i2t']):.1f} ari: {average(fold, sides['t2i']):.1f}"
        lines += [f"rsum: {fold['rsum']:.1f} {averages}"]
    if folds:
        lines += ["-----------------------------------", "Mean metrics: "]
    lines += [f"rsum: {mean['rsum']:.1f}"]
    for words, (short, side) in zip(("Image to text", "Text to image"), sides.items(), strict=True):
        lines += [f"Average {short} Recall: {average(mean, side):.1f}", f"{words}: {row(mean, side, ' ')}"]
    return "\n".join(lines)


@torch.no_grad()
def score_matrix(
    model: Matcher,
    dataset: PrecomputedDataset,
    block: int | None = None,
    images: range | None = None,
    precision: Precision = "float32",
    shared: bool = False,
) -> Tensor:
    """Score every image of a split with every caption: (n_images, n_captions) on the CPU.

    Every image is embedded once; embeddings wait on the model's device, and `block` images meet `block` captions, taken
    in order of length to save padding. block: None is 128, and 512 on an accelerator, which large products keep busy.
    images: consecutive ones, with their captions; None is all. precision: of the attention and the scores, see
    `ExperimentConfig.evaluation_precision`; embeddings are those of the model, as in the released code. shared: the
    processes that train together share the captions' blocks, and all must call this; the scores are the same.
    """
    was_training = model.training
    model.eval()
    try:
        return _score_in_blocks(model, dataset, block, images or range(len(dataset.features)), precision, shared)
    finally:
        model.train(was_training)


def _score_in_blocks(
    model: Matcher, dataset: PrecomputedDataset, block: int | None, images: range, precision: Precision, shared: bool
) -> Tensor:
    device = next(model.parameters()).device
    block = block or (128 if device.type == "cpu" else 512)
    dtype = torch.float64 if precision == "float64" else torch.float32
    first, last = images.start, min(images.stop, len(dataset.features))
    K = dataset.captions_per_image
    blocks = [range(start, min(start + block, last)) for start in range(first, last, block)]
    embedded_images = [
        model.embed_images(dataset.images(part.start, part.stop).to(device), dataset.counts(part)).to(dtype)
        for part in blocks
    ]
    by_length = dataset.caption_lengths[first * K : last * K].argsort(kind="stable")
    scores = torch.zeros(last - first, len(by_length), dtype=dtype, device=device)
    mine, processes = (dist.get_rank(), process_count()) if shared and process_count() > 1 else (0, 1)
    starts = range(mine * block, len(by_length), processes * block)
    for start in progress(starts, "scoring captions") if not mine else starts:
        chosen = by_length[start : start + block]
        tokens, lengths = dataset.read_captions((first * K + chosen).tolist())
        captions = model.embed_captions(tokens.to(device), lengths).to(dtype)
        columns = torch.from_numpy(chosen).to(device, non_blocking=True)
        for row, embedded in enumerate(embedded_images):
            with products(precision, device):
                values = model.scores(embedded, captions, lengths)
            scores[row * block : row * block + len(values)].index_copy_(1, columns, values.to(dtype))
    if processes > 1:
        dist.all_reduce(scores)  # every column is zero but with one of them
    return scores.cpu()


@contextlib.contextmanager
def products(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute matrix products of float32 in a precision, tf32 or bf16; what is between them stays in float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def evaluate_model(
    model: Matcher,
    dataset: PrecomputedDataset,
    return_ranks: bool = False,
    precision: Precision = "float32",
    shared: bool = False,
) -> dict[str, Any]:
    """Return `retrieval_metrics` of a model on a split."""
    return retrieval_metrics(
        score_matrix(model, dataset, precision=precision, shared=shared), dataset.captions_per_image, return_ranks
    )
