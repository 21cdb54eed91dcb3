"""Retrieval metrics: ranks, recalls and their sum."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

RECALL_AT = (1, 5, 10)
DIRECTIONS = ("image_to_text", "text_to_image")
MEASURES = (*(f"recall_at_{k}" for k in RECALL_AT), "median_rank", "mean_rank")
METRICS = (*(f"{direction}_{measure}" for direction in DIRECTIONS for measure in MEASURES), "rsum")
RANKS = tuple(f"{direction}_ranks" for direction in DIRECTIONS)


def retrieval_metrics(
    scores: Tensor | np.ndarray,
    captions_per_image: int = 5,
    return_ranks: bool = False,
    sentences: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Return recalls in percent, median and mean rank of both directions, and rsum, the sum of the six recalls.

    scores: (n_images, n_images * captions_per_image), image-major. An image asks for the best ranked of its captions,
    a caption for its image. Ties count against us: a wrong item with the true one's score is ranked before it, so a
    model that gives every pair the same score is not rewarded. Median rank is floor(median) + 1 and mean rank is
    mean + 1 of the 0-based ranks, as in the released code. return_ranks: add these, `image_to_text_ranks` (n_images,)
    and `text_to_image_ranks` (n_captions,). sentences: a number for every caption; a caption is then right for every
    image that has one of the same number, where the usual protocol, None, has it wrong. Raises ValueError for a matrix
    of another shape or with NaN.
    """
    scores = _checked(scores, captions_per_image)
    ranks = [found.cpu().numpy() for found in _ranks(scores, _right_pairs(scores, captions_per_image, sentences))]
    metrics: dict[str, Any] = {}
    for name, values in zip(DIRECTIONS, ranks, strict=True):
        for k in RECALL_AT:
            metrics[f"{name}_recall_at_{k}"] = 100.0 * float((values < k).mean())
        metrics[f"{name}_median_rank"] = float(np.floor(np.median(values)) + 1)
        metrics[f"{name}_mean_rank"] = float(values.mean() + 1)
    metrics["rsum"] = sum(metrics[f"{name}_recall_at_{k}"] for name in DIRECTIONS for k in RECALL_AT)
    return metrics | (dict(zip(RANKS, ranks, strict=True)) if return_ranks else {})


def tied_queries(scores: Tensor | np.ndarray, captions_per_image: int = 5) -> dict[str, int]:
    """Count, for both directions, the queries whose right item scores the same, to the last bit, as a wrong one.

    The metrics rank that wrong one before it; a sort would leave it to chance. For the arguments and errors see
    `retrieval_metrics`.
    """
    scores = _checked(scores, captions_per_image)
    right = _right_pairs(scores, captions_per_image)
    at_least, above = _ranks(scores, right), _ranks(scores, right, torch.gt)
    return {name: int((a != b).sum()) for name, a, b in zip(DIRECTIONS, at_least, above, strict=True)}


def _checked(scores: Tensor | np.ndarray, captions_per_image: int) -> Tensor:
    scores = torch.as_tensor(scores)
    if not scores.is_floating_point():
        scores = scores.cpu().double()  # not every device has float64
    n_images, n_captions = scores.shape if scores.ndim == 2 else (0, 0)
    if n_images == 0 or captions_per_image < 1 or n_captions != n_images * captions_per_image:
        expected = f"(n_images, n_images * captions_per_image) with captions_per_image = {captions_per_image}"
        raise ValueError(f"scores: found shape {tuple(scores.shape)}, expected {expected}")
    return scores


def _right_pairs(scores: Tensor, captions_per_image: int, sentences: Sequence[int] | None = None) -> Tensor:
    """Return which image and caption belong together: (2, pairs), their numbers, every pair once."""
    captions = torch.arange(scores.shape[1], device=scores.device)
    if sentences is None:
        return torch.stack([captions // captions_per_image, captions])
    if len(sentences) != len(captions):
        raise ValueError(f"sentences: found {len(sentences)} numbers, expected {len(captions)}, one for each caption")
    of_sentence: dict[int, list[int]] = {}
    for caption, sentence in enumerate(sentences):
        of_sentence.setdefault(int(sentence), []).append(caption)
    pairs = [
        (image, caption)
        for same in of_sentence.values()
        for image in {caption // captions_per_image for caption in same}
        for caption in same
    ]
    return torch.tensor(pairs, device=scores.device).T


def _ranks(
    scores: Tensor, right: Tensor, reaches: Callable[[Tensor, Tensor], Tensor] = torch.ge, block: int = 128
) -> list[Tensor]:
    """Return the 0-based ranks of the images' best captions and of the captions' best images: how many wrong items
    score at least as high. Done for `block` images at once, as torch counts with eight bytes a pair.
    """
    true = scores[right[0], right[1]]
    best = [
        scores.new_full((size,), -torch.inf).scatter_reduce(0, of, true, "amax")
        for size, of in zip(scores.shape, right, strict=True)
    ]
    ranks = [torch.zeros(size, dtype=torch.int64, device=scores.device) for size in scores.shape]
    for start in range(0, len(scores), block):
        rows = slice(start, start + block)
        if bool(scores[rows].isnan().any()):
            raise ValueError("scores: found NaN, expected numbers that can be ranked")
        ranks[0][rows] = reaches(scores[rows], best[0][rows, None]).sum(dim=1)
        ranks[1] += reaches(scores[rows], best[1]).sum(dim=0)
    # What scores as high as the best counts as ranked before it, unless it is right too.
    for found, of, value in zip(ranks, right, best, strict=True):
        found.index_add_(0, of, -reaches(true, value[of]).long())
    return ranks


def fold_metrics(
    scores: Iterable[Tensor],
    captions_per_image: int = 5,
    return_ranks: bool = False,
    sentences: Sequence[int] | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the mean of `retrieval_metrics` over folds, and those of every fold; ranks are put one after the other.

    scores: of every fold alone, as MSCOCO's 1K numbers are: five matrices of (1000, 5000). sentences: of all folds.
    """
    folds, start = [], 0
    for fold in scores:
        of_fold = None if sentences is None else sentences[start : (start := start + fold.shape[1])]
        folds.append(retrieval_metrics(fold, captions_per_image, return_ranks, of_fold))
    mean: dict[str, Any] = {name: float(np.mean([fold[name] for fold in folds])) for name in METRICS}
    if return_ranks:
        mean |= {name: np.concatenate([fold[name] for fold in folds]) for name in RANKS}
    return mean, folds


def released_lines(mean: Mapping[str, float], folds: Sequence[Mapping[str, float]] = ()) -> str:
    """Say metrics in the lines of the released evaluation, for comparing with its logs; folds are listed one by one.

    Behind the recalls stand median and mean rank. The release's summary of folds is made of the wrong columns: it takes
    "rsum" for six times the average image-to-text recall. Here the columns are right.
    """
    words = {"image_to_text": ("Image to text", "i2t"), "text_to_image": ("Text to image", "t2i")}

    def row(metrics: Mapping[str, float], direction: str, separator: str) -> str:
        return separator.join(f"{metrics[f'{direction}_{measure}']:.1f}" for measure in MEASURES)

    def average(metrics: Mapping[str, float], direction: str) -> str:
        return f"{sum(metrics[f'{direction}_recall_at_{k}'] for k in RECALL_AT) / len(RECALL_AT):.1f}"

    lines = []
    for fold in folds:
        lines += [f"{said}: {row(fold, direction, ', ')}" for direction, (said, _) in words.items()]
        ar, ari = (average(fold, direction) for direction in DIRECTIONS)
        lines += [f"rsum: {fold['rsum']:.1f} ar: {ar} ari: {ari}"]
    if folds:
        lines += ["-----------------------------------", "Mean metrics: "]
    lines += [f"rsum: {mean['rsum']:.1f}"]
    for direction, (said, short) in words.items():
        lines += [f"Average {short} Recall: {average(mean, direction)}", f"{said}: {row(mean, direction, ' ')}"]
    return "\n".join(lines)
