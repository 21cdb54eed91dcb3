"""Retrieval metrics: ranks, recalls and their sum."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
