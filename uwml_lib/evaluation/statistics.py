"""Spread over seeds, paired differences with intervals, and words that follow the interval."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from uwml_lib.evaluation.metrics import RECALL_AT

CONFIDENCE = 0.95
ROUNDING = 1e-9  # relative; a spread below it is that of floating point


class Summary(NamedTuple):
    """Mean, sample standard deviation (NaN for one value) and number of values."""

    mean: float
    std: float
    n: int

    @property
    def mean_and_std(self) -> str:
        """Mean ± standard deviation; the mean alone of one value."""
        return f"{self.mean:.1f} ± {self.std:.1f}" if self.n > 1 else f"{self.mean:.1f}"

    def __str__(self) -> str:
        return f"{self.mean_and_std} (n = {self.n})"


class Interval(NamedTuple):
    """A difference and its confidence interval; the ends are NaN where there is too little to tell."""

    difference: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{self.difference:+.1f} (no interval from one value)"
        return f"{self.difference:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def summarize(values: Sequence[float]) -> Summary:
    """Summarize the values of several seeds."""
    array = np.asarray(values, dtype=float)
    return Summary(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else float("nan"), len(array))


def paired_interval(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Interval of mean(a - b) over pairs (one pair a seed), by Student's t; raises ValueError for unequal lengths."""
    difference = _paired_difference(a, b)
    mean = float(difference.mean())
    if len(difference) < 2:
        return Interval(mean, float("nan"), float("nan"))
    from scipy import stats  # slow to import, and not needed by the metrics

    half = float(stats.t.ppf((1 + confidence) / 2, len(difference) - 1) * stats.sem(difference))
    return Interval(mean, mean - half, mean + half)


def rsum_by_image(image_to_text_ranks: np.ndarray, text_to_image_ranks: np.ndarray) -> np.ndarray:
    """Split rsum into one contribution per test image, (n_images,), whose mean is rsum.

    An image contributes its own recalls as a query and those of its captions: they stand or fall together, so a
    bootstrap must draw them together. Ranks are 0-based: (n_images,) and (n_images * captions_per_image,).
    """
    per_caption = text_to_image_ranks.reshape(len(image_to_text_ranks), -1)
    return sum(100.0 * (image_to_text_ranks < k) + 100.0 * (per_caption < k).mean(axis=1) for k in RECALL_AT)


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, draws: int = 10_000, seed: int = 0, confidence: float = CONFIDENCE
) -> Interval:
    """Interval of mean(a - b) over test queries, (n,) each, by resampling queries with replacement (percentiles).

    Raises ValueError for unequal lengths.
    """
    difference = _paired_difference(a, b)
    if len(difference) < 2:
        return Interval(float(difference.mean()), float("nan"), float("nan"))
    generator = np.random.default_rng(seed)
    means = np.concatenate([
        difference[generator.integers(len(difference), size=(min(500, draws - start), len(difference)))].mean(axis=1)
        for start in range(0, draws, 500)
    ])  # fmt: skip
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(difference.mean()), float(low), float(high))


def verdict(a_name: str, b_name: str, over_seeds: Interval, over_queries: Interval) -> str:
    """Say which is better only if both intervals of a - b say so, and else what each of them says.

    An interval without width over seeds is no certainty: differences that happen to be equal hide the spread.
    """
    for interval, what in ((over_seeds, "seed"), (over_queries, "image")):
        if np.isnan(interval.low) or np.isnan(interval.high):
            return f"not decided: one {what} says nothing about the spread"
    if over_seeds.high - over_seeds.low <= ROUNDING * max(1.0, abs(over_seeds.difference)):
        return "not decided: the seeds do not differ, so they say nothing about the spread"
    winners = [_winner(a_name, b_name, interval) for interval in (over_seeds, over_queries)]
    if winners[0] and winners[0] == winners[1]:
        return f"{winners[0]} is better"
    if winners[0] and winners[1]:
        return "not decided: the two intervals contradict each other"
    if winners[1]:
        return f"not decided: {winners[1]} is ahead on these images, but the interval over seeds includes 0"
    if winners[0]:
        return f"not decided: {winners[0]} is ahead with these seeds, but the interval over images includes 0"
    return "no difference shown: both intervals include 0"


def _winner(a_name: str, b_name: str, interval: Interval) -> str | None:
    return a_name if interval.low > 0 else b_name if interval.high < 0 else None


def _paired_difference(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> np.ndarray:
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(f"a and b: found {len(a)} and {len(b)} values, expected pairs")
    return np.asarray(a, dtype=float) - np.asarray(b, dtype=float)


def chance_rsum(n_images: int, captions_per_image: int) -> float:
    """Expected rsum of random scores: the first k places are k draws without replacement."""
    n_captions = n_images * captions_per_image
    total = 0.0
    for k in RECALL_AT:
        missed = np.prod([(n_captions - captions_per_image - i) / (n_captions - i) for i in range(min(k, n_captions))])
        total += 100 * (1 - max(float(missed), 0)) + 100 * min(k / n_images, 1)
    return total
