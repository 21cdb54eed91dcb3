"""Groups of runs compared: spread over seeds, intervals over seeds and over images, one verdict.

Whatever says who is ahead asks `compare` or `compare_all`. The metrics do without scipy: it is imported where needed.
"""

import functools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from uwml_lib.evaluation.metrics import RECALL_AT
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.progress import counted

CONFIDENCE = 0.95
ROUNDING = 1e-9  # relative; a spread below it is that of floating point
NAN = float("nan")
NO_DIFFERENCE = "no difference shown"
Key = TypeVar("Key", bound=Hashable)
Values = Sequence[float] | np.ndarray
Runs = Sequence[Any]
"""Finished runs, or whatever else has their `seed`, `rsum` and `rsum_by_image`."""


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
    low: float = NAN
    high: float = NAN

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{self.difference:+.1f} (no interval from one value)"
        return f"{self.difference:+.1f} {self.ends}"

    @property
    def ends(self) -> str:
        """The interval alone, without the difference."""
        return f"[{self.low:+.1f}, {self.high:+.1f}]"

    @property
    def sign(self) -> int:
        """1 if the whole interval is above 0, -1 if it is below, else 0."""
        return int(self.low > 0) - int(self.high < 0)


class Comparison(NamedTuple):
    """How far the rsum of a group of runs, a, is from that of another, b.

    over_seeds: mean(a) - mean(b), with its interval by Student's t over pairs of one seed, or by Welch's.
    over_images: the same, with the interval over test images, seeds averaged, by bootstrap.
    p_value: two-sided, over seeds, times `family`, at most 1; NaN where there is too little to tell.
    n: seeds of a and b. family: of how many comparisons this is one; both intervals have the level 1 - 0.05 / family.
    """

    over_seeds: Interval
    over_images: Interval
    p_value: float
    n: tuple[int, int]
    family: int = 1

    @property
    def winner(self) -> str:
        """ "a" or "b" if both intervals say so, and else ""."""
        undecided = self._obstacle() or self.over_seeds.sign != self.over_images.sign
        return "" if undecided else {1: "a", -1: "b", 0: ""}[self.over_seeds.sign]

    def leader(self, a: str, b: str) -> str:
        """What the winner is called, "" if there is none; a and b: what to call the groups."""
        return {"a": a, "b": b, "": ""}[self.winner]

    def verdict(self, a: str, b: str) -> str:
        """Say which is better, or why that is not decided; a and b: what to call the groups."""
        if obstacle := self._obstacle():
            return f"not decided: {obstacle}"
        seeds, images = ({1: a, -1: b, 0: ""}[interval.sign] for interval in (self.over_seeds, self.over_images))
        if seeds and seeds == images:
            return f"{seeds} is better"
        if seeds and images:
            return "not decided: the two intervals contradict each other"
        if images:
            return f"not decided: with these trainings {images} is ahead, but the interval over seeds includes 0"
        if seeds:
            return f"not decided: on these images {seeds} is ahead, but the interval over images includes 0"
        return f"{NO_DIFFERENCE}: both intervals include 0"

    def _obstacle(self) -> str:
        """Why nothing can be decided. Differences that happen to be equal hide the spread: they are no certainty."""
        for interval, what in ((self.over_seeds, "seed"), (self.over_images, "image")):
            if np.isnan(interval.low) or np.isnan(interval.high):
                return f"one {what} says nothing about the spread"
        if self.over_seeds.high - self.over_seeds.low <= 10 * ROUNDING * max(1.0, abs(self.over_seeds.difference)):
            return "the seeds do not differ, so they say nothing about the spread"
        return ""


def compare(a: Runs, b: Runs, *, paired: bool | None = True, family: int = 1) -> Comparison:
    """Compare two groups of runs by rsum; see `Comparison`.

    paired: members of one seed are a pair, as where the seed decides the same weights or order for both; else the
    groups may differ in their seeds and in number (Welch). None: paired where both have the same seeds. family: see
    `Comparison`. Raises UWMLError for an empty group, a seed twice in one, and seeds that only one has (paired);
    ValueError for different numbers of images.
    """
    sides = [{run.seed: run for run in group} for group in (a, b)]
    for name, group, by_seed in zip("ab", (a, b), sides, strict=True):
        if not group or len(by_seed) < len(group):
            raise UWMLError(f"{name}: found the seeds {[run.seed for run in group]}, expected at least one, each once")
    unmatched = sorted(sides[0].keys() ^ sides[1].keys())
    paired = not unmatched if paired is None else paired
    if paired and unmatched:
        raise UWMLError(f"seeds: found {unmatched} in one group alone, expected the same in both, or paired=False")
    groups = [[by_seed[seed] for seed in sorted(by_seed)] for by_seed in sides]
    level = 1 - (1 - CONFIDENCE) / family
    seeds_a, seeds_b = (np.array([run.rsum for run in group], dtype=float) for group in groups)
    over_seeds, p_value = _over_seeds(seeds_a, seeds_b, paired, level)
    images_a, images_b = (np.mean([run.rsum_by_image for run in group], axis=0) for group in groups)
    over_images = paired_bootstrap(images_a, images_b, confidence=level)
    p_value = float(np.minimum(1.0, p_value * family))  # NaN stays NaN
    return Comparison(over_seeds, over_images, p_value, (len(a), len(b)), family)


def compare_all(pairs: Mapping[Key, tuple[Runs, Runs]], *, paired: bool | None = True) -> dict[Key, Comparison]:
    """Compare many pairs of groups, corrected by Holm's method: the surest as one of all of them, the next as one of
    one less, and so on; from the first that is not significant on, none is.
    """
    alone = {key: compare(a, b, paired=paired) for key, (a, b) in pairs.items()}
    family, significant, found = len(alone), True, {}
    for key in sorted(alone, key=lambda key: np.nan_to_num(alone[key].p_value, nan=2.0)):
        found[key] = compare(*pairs[key], paired=paired, family=family)
        significant = significant and found[key].p_value < 1 - CONFIDENCE
        family -= significant
    return {key: found[key] for key in pairs}


def _over_seeds(a: np.ndarray, b: np.ndarray, paired: bool, level: float) -> tuple[Interval, float]:
    """Interval of mean(a) - mean(b) by Student's t over pairs, or by Welch's, and its two-sided p-value."""
    from scipy import stats

    if paired:
        undecided = len(a) < 2 or _alike(a - b)
        return paired_interval(a, b, level), NAN if undecided else float(stats.ttest_1samp(a - b, 0.0).pvalue)
    difference = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return Interval(difference), NAN
    if _alike(a) and _alike(b):
        return Interval(difference, difference, difference), NAN
    found = stats.ttest_ind(a, b, equal_var=False)
    return Interval(difference, *map(float, found.confidence_interval(level))), float(found.pvalue)


def _alike(values: np.ndarray) -> bool:
    """Whether values differ by no more than the rounding of floating point."""
    return bool(values.std() <= ROUNDING * max(1.0, abs(values.mean())))


def summarize(values: Sequence[float]) -> Summary:
    """Summarize the values of several seeds."""
    array = np.asarray(values, dtype=float)
    return Summary(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else NAN, len(array))


def paired_interval(a: Values, b: Values, confidence: float = CONFIDENCE) -> Interval:
    """Interval of mean(a - b) over pairs (one pair a seed), by Student's t; raises ValueError for unequal lengths."""
    difference = _paired_difference(a, b)
    mean = float(difference.mean())
    if len(difference) < 2:
        return Interval(mean)
    from scipy import stats

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
    """Interval of mean(a - b) over n queries, by the percentile bootstrap; raises ValueError for unequal lengths."""
    difference = float(_paired_difference(a, b).mean())
    if len(a) < 2:
        return Interval(difference)
    drawn_a, drawn_b = (_means_of_draws(np.asarray(x, dtype=float).tobytes(), draws, seed) for x in (a, b))
    low, high = np.quantile(drawn_a - drawn_b, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(difference, float(low), float(high))


@functools.lru_cache(maxsize=128)
def _means_of_draws(values: bytes, draws: int, seed: int) -> np.ndarray:
    """Return the means of bootstrap draws (draws,) of float64 values; the same seed draws the same places, so that the
    difference of two is that of pairs. Kept, for a table compares each group with many.
    """
    array, generator = np.frombuffer(values), np.random.default_rng(seed)
    size = len(array)
    return np.concatenate([
        array[generator.integers(size, size=(min(500, draws - start), size))].mean(axis=1)
        for start in range(0, draws, 500)
    ])  # fmt: skip


def chance_rsum(n_images: int, captions_per_image: int) -> float:
    """Expected rsum of random scores: the first k places are k draws without replacement."""
    n_captions = n_images * captions_per_image
    total = 0.0
    for k in RECALL_AT:
        missed = np.prod([(n_captions - captions_per_image - i) / (n_captions - i) for i in range(min(k, n_captions))])
        total += 100 * (1 - max(float(missed), 0)) + 100 * min(k / n_images, 1)
    return total


def remark_on_size(n_images: int, captions_per_image: int, image: str = "image") -> str:
    """Say what recalls over so few images are worth; empty where random scores get at most a tenth of an rsum of 600.

    Where all wrong items fit into the first k - 1 places, recall at k is 100 whatever the scores. image: what to call
    one, such as "dev image".
    """
    if (chance := chance_rsum(n_images, captions_per_image)) <= 60:
        return ""
    wrong = {"image to text": (n_images - 1) * captions_per_image, "text to image": n_images - 1}
    given = [f"{direction} R@{k}" for direction, n_wrong in wrong.items() for k in RECALL_AT if n_wrong < k]
    about = f"Only {counted(n_images, image)}: random scores would give an rsum of {chance:.1f} of 600"
    if not given:
        return f"{about}, and one image is {100 / n_images:.1f} points of a recall, so recalls over them mean little."
    which = "every recall" if len(given) == 6 else ", ".join(given)
    return f"{about}, and any scores 100 at {which}, so recalls over them mean nothing."


def _paired_difference(a: Values, b: Values) -> np.ndarray:
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(f"a and b: found {len(a)} and {len(b)} values, expected pairs")
    return np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
