"""Intervals against scipy and against their promise, and words that say no more than the intervals."""

import numpy as np
import pytest
from scipy import stats

from uwml_lib.evaluation import (
    Interval,
    paired_bootstrap,
    paired_interval,
    retrieval_metrics,
    rsum_by_image,
    summarize,
    verdict,
)

NAN = float("nan")


def test_summarize():
    summary = summarize([1, 2, 4])
    assert summary == pytest.approx((7 / 3, np.std([1, 2, 4], ddof=1), 3))
    assert str(summary) == "2.3 ± 1.5 (n = 3)"


def test_summarize_one_value():
    summary = summarize([5.04])
    assert summary.mean == 5.04
    assert np.isnan(summary.std)
    assert str(summary) == "5.0 (n = 1)"


@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_paired_interval_is_that_of_the_paired_t_test(confidence):
    generator = np.random.default_rng(0)
    a, b = generator.normal(1, 2, 7), generator.normal(0, 2, 7)
    found = paired_interval(a, b, confidence)
    expected = stats.ttest_rel(a, b).confidence_interval(confidence)
    assert found.difference == pytest.approx(np.mean(a) - np.mean(b))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.low > 0) == (stats.ttest_rel(a, b, alternative="greater").pvalue < (1 - confidence) / 2)


def test_the_paired_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(1000):
        shared = generator.normal(0, 10, 5)  # what both losses owe to the seed
        interval = paired_interval(shared + generator.normal(3, 1, 5), shared + generator.normal(1, 1, 5))
        hits += interval.low < 2 < interval.high
    assert 930 <= hits <= 970  # 95 % of 1000, three standard deviations either way


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(2)
    hits = 0
    for number in range(400):
        difference = generator.choice([-100.0, 0.0, 100.0], p=[0.2, 0.5, 0.3], size=200)
        interval = paired_bootstrap(difference, np.zeros(200), draws=1000, seed=number)
        hits += interval.low < 10 < interval.high
    assert 365 <= hits <= 395


def test_the_bootstrap_agrees_with_scipy_and_repeats_itself():
    generator = np.random.default_rng(3)
    a, b = generator.normal(1, 3, 100), generator.normal(0, 3, 100)
    found = paired_bootstrap(a, b, draws=9_999, seed=4)
    expected = stats.bootstrap((a - b,), np.mean, method="percentile", rng=0).confidence_interval
    assert found.difference == pytest.approx(np.mean(a - b))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.05)
    assert paired_bootstrap(a, b, draws=9_999, seed=4) == found
    assert paired_bootstrap(a, b, draws=9_999, seed=5) != found
    swapped = paired_bootstrap(b, a, draws=9_999, seed=4)
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))


def test_one_value_has_no_interval():
    for interval in (paired_interval([3.0], [1.0]), paired_bootstrap(np.array([3.0]), np.array([1.0]))):
        assert interval.difference == 2
        assert np.isnan(interval.low)
        assert np.isnan(interval.high)
        assert str(interval) == "+2.0 (no interval from one value)"


@pytest.mark.parametrize("interval", [paired_interval, paired_bootstrap])
@pytest.mark.parametrize(("a", "b"), [([1.0, 2.0], [1.0]), ([1.0], [1.0, 2.0]), ([], [])])
def test_only_pairs(interval, a, b):
    with pytest.raises(ValueError, match=f"found {len(a)} and {len(b)} values, expected pairs"):
        interval(np.array(a), np.array(b))


def test_an_interval_in_words():
    assert str(Interval(1.25, -0.5, 3)) == "+1.2 [-0.5, +3.0]"


@pytest.mark.parametrize("captions_per_image", [1, 5])
def test_the_contributions_of_the_images_average_to_rsum(captions_per_image):
    scores = np.random.default_rng(5).normal(size=(30, 30 * captions_per_image))
    scores[np.arange(30), captions_per_image * np.arange(30)] += 2
    metrics = retrieval_metrics(scores, captions_per_image, return_ranks=True)
    by_image = rsum_by_image(metrics["image_to_text_ranks"], metrics["text_to_image_ranks"])
    assert by_image.shape == (30,)
    assert by_image.mean() == pytest.approx(metrics["rsum"])


def test_an_image_owns_its_captions():
    by_image = rsum_by_image(np.array([0, 99]), np.array([0, 4, 9, 99]))
    assert by_image.tolist() == [300 + 50 + 100 + 100, 50]


@pytest.mark.parametrize(
    ("intervals", "words"),
    [
        ([(1, 0.1, 2), (1, 0.5, 1.5)], "ours is better"),
        ([(-1, -2, -0.1), (-1, -1.5, -0.5)], "theirs is better"),
        ([(1, -1, 3), (1, -1, 3)], "no difference shown: both intervals include 0"),
        (
            [(1, -0.1, 2), (1, 0.5, 1.5)],
            "not decided: ours is ahead on these images, but the interval over seeds includes 0",
        ),
        (
            [(1, 0.1, 2), (1, 0, 2)],
            "not decided: ours is ahead with these seeds, but the interval over images includes 0",
        ),
        (
            [(-1, -2, 0), (-1, -2, -0.5)],
            "not decided: theirs is ahead on these images, but the interval over seeds includes 0",
        ),
        ([(1, 0.1, 2), (-1, -2, -0.5)], "not decided: the two intervals contradict each other"),
        ([(5, NAN, NAN), (5, 4, 6)], "not decided: one seed says nothing about the spread"),
        ([(5, 4, 6), (5, NAN, NAN)], "not decided: one image says nothing about the spread"),
        ([(5, -1, 11), (5, NAN, NAN)], "not decided: one image says nothing about the spread"),
        ([(5, NAN, NAN), (5, NAN, NAN)], "not decided: one seed says nothing about the spread"),
        ([(1, 1, 1), (1, 0.5, 1.5)], "not decided: the seeds do not differ, so they say nothing about the spread"),
        ([(0, 0, 0), (0, -1, 1)], "not decided: the seeds do not differ, so they say nothing about the spread"),
    ],
)
def test_the_verdict_follows_the_intervals(intervals, words):
    assert verdict("ours", "theirs", *(Interval(*interval) for interval in intervals)) == words


@pytest.mark.parametrize(("a", "b"), [([3, 3], [2, 2]), ([0.3, 0.4, 0.5], [0.1, 0.2, 0.3]), ([500.1] * 4, [400.3] * 4)])
def test_differences_that_happen_to_be_equal_decide_nothing(a, b):
    over_seeds = paired_interval(a, b)
    assert (over_seeds.low, over_seeds.high) == pytest.approx((over_seeds.difference,) * 2)
    words = verdict("ours", "theirs", over_seeds, Interval(over_seeds.difference, 0.01, 200))
    assert words == "not decided: the seeds do not differ, so they say nothing about the spread"
