"""Intervals against scipy and against their promise, and verdicts that say no more than the intervals."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from uwml_lib.evaluation import (
    Comparison,
    Interval,
    chance_rsum,
    compare,
    compare_all,
    paired_bootstrap,
    paired_interval,
    remark_on_size,
    retrieval_metrics,
    rsum_by_image,
    summarize,
)
from uwml_lib.support.errors import UWMLError

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


@pytest.mark.parametrize("n_images", [1, 2, 3, 5, 6, 10, 11, 30])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_recalls_said_to_be_given_are_100_at_the_worst_scores_and_no_others(n_images, k):
    worst = retrieval_metrics(-np.repeat(np.eye(n_images), k, axis=1), k)
    given = [
        f"{side.replace('_', ' ')} R@{at}"
        for side in ("image_to_text", "text_to_image") for at in (1, 5, 10) if worst[f"{side}_recall_at_{at}"] == 100
    ]  # fmt: skip
    remark = remark_on_size(n_images, k, "dev image")
    assert f"rsum of {chance_rsum(n_images, k):.1f} of 600" in remark
    assert remark.startswith(f"Only {n_images} dev image{'s' * (n_images > 1)}: random")
    where = "every recall" if n_images == 1 else ", ".join(given)
    said = f"any scores 100 at {where}, so recalls over them mean nothing."
    points = f"one image is {100 / n_images:.1f} points of a recall, so recalls over them mean little."
    assert remark.endswith(said if given else points)


def test_enough_images_get_no_remark():
    """Those of whom random scores have a tenth of 600, at most."""
    first = next(n for n in range(1, 200) if chance_rsum(n, 5) <= 60)
    assert first == 52
    assert remark_on_size(first, 5) == ""
    assert remark_on_size(first - 1, 5).startswith("Only 51 images: random scores would give an rsum of 6")


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
            "not decided: with these trainings ours is ahead, but the interval over seeds includes 0",
        ),
        (
            [(1, 0.1, 2), (1, 0, 2)],
            "not decided: on these images ours is ahead, but the interval over images includes 0",
        ),
        (
            [(-1, -2, 0), (-1, -2, -0.5)],
            "not decided: with these trainings theirs is ahead, but the interval over seeds includes 0",
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
    comparison = Comparison(*(Interval(*interval) for interval in intervals), p_value=0.5, n=(3, 3))
    assert comparison.verdict("ours", "theirs") == words
    assert comparison.winner == {"ours is better": "a", "theirs is better": "b"}.get(words, "")


# ------------------------------------------------------------------------------------------------- groups of runs


def group(rsums, spread=2.0):
    """Runs by seed; on 50 images, whose contributions differ from one another, the same in every group."""
    by_image = spread * np.random.default_rng(0).normal(size=50)
    by_image -= by_image.mean()
    return [SimpleNamespace(seed=seed, rsum=rsum, rsum_by_image=rsum + by_image) for seed, rsum in rsums.items()]


def test_runs_are_paired_by_seed_whatever_their_order():
    a, b = {0: 410.0, 1: 430.0, 2: 421.0}, {2: 411.5, 0: 399.0, 1: 419.5}
    found = compare(group(a), group(b))
    assert found.over_seeds == paired_interval([410, 430, 421], [399, 419.5, 411.5])
    assert found.p_value == pytest.approx(stats.ttest_rel([410, 430, 421], [399, 419.5, 411.5]).pvalue)
    assert (found.n, found.winner) == ((3, 3), "a")
    back = compare(group(b), group(a))
    assert (back.winner, back.over_seeds.difference) == ("b", -found.over_seeds.difference)


def test_images_are_compared_with_the_seeds_averaged():
    generator = np.random.default_rng(1)
    groups = [
        [SimpleNamespace(seed=seed, rsum=1.0 * seed, rsum_by_image=generator.normal(size=9)) for seed in (0, 1)]
        for _ in "ab"
    ]
    means = [np.mean([run.rsum_by_image for run in runs], axis=0) for runs in groups]
    assert compare(*groups).over_images == paired_bootstrap(*means)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ({0: 1, 1: 2}, {0: 1, 2: 2}, r"seeds: found \[1, 2\] in one group alone"),
        ({0: 1, 1: 2}, {0: 1}, r"seeds: found \[1\] in one group alone"),
        ({0: 1}, {}, r"b: found the seeds \[\], expected at least one"),
    ],
)
def test_other_sets_of_seeds_are_no_pairs(a, b, words):
    with pytest.raises(UWMLError, match=words):
        compare(group(a), group(b))
    if b:
        assert compare(group(a), group(b), paired=False).n == (len(a), len(b))


def test_a_seed_twice_is_no_group():
    with pytest.raises(UWMLError, match=r"a: found the seeds \[0, 0\], expected at least one, each once"):
        compare(group({0: 1}) * 2, group({0: 1}))


def test_unpaired_groups_are_compared_by_welch():
    a, b = [410.0, 430.0, 421.0, 417.0], [399.0, 404.5]
    found = compare(group(dict(enumerate(a))), group(dict(enumerate(b))), paired=False, family=2)
    expected = stats.ttest_ind(a, b, equal_var=False)
    interval = expected.confidence_interval(0.975)
    assert (found.over_seeds.low, found.over_seeds.high) == pytest.approx((interval.low, interval.high))
    assert found.p_value == pytest.approx(2 * expected.pvalue)


@pytest.mark.parametrize("paired", [True, False])
def test_differences_that_happen_to_be_equal_decide_nothing(paired):
    found = compare(group({0: 450.3, 1: 450.3, 2: 450.3}), group({0: 450.1, 1: 450.1, 2: 450.1}), paired=paired)
    assert found.verdict("a", "b") == "not decided: the seeds do not differ, so they say nothing about the spread"
    assert found.winner == ""
    assert np.isnan(found.p_value)


def test_one_seed_decides_nothing():
    for paired in (True, False):
        assert compare(group({0: 450.0}), group({0: 1.0}), paired=paired).verdict("a", "b").startswith("not decided")


def test_the_level_follows_the_number_of_comparisons():
    a, b = {0: 410.0, 1: 430.0, 2: 421.0}, {0: 399.0, 1: 419.5, 2: 411.5}
    alone, one_of_ten = compare(group(a), group(b)), compare(group(a), group(b), family=10)
    expected = stats.ttest_rel(list(a.values()), list(b.values()))
    interval = expected.confidence_interval(0.995)
    assert (one_of_ten.over_seeds.low, one_of_ten.over_seeds.high) == pytest.approx((interval.low, interval.high))
    assert one_of_ten.p_value == pytest.approx(10 * alone.p_value)
    assert (one_of_ten.over_seeds.low > 0) == (one_of_ten.p_value < 0.05)


def test_holm_corrects_step_by_step():
    base = {0: 400.0, 1: 401.0, 2: 399.5, 3: 400.2}
    wiggle = {0: 0.0, 1: 1.0, 2: -1.0, 3: 0.3}

    def moved(by, noise):
        return group({seed: rsum + by + noise * wiggle[seed] for seed, rsum in base.items()})

    pairs = {
        "middle": (moved(3.2, 1), group(base)),
        "sure": (moved(20, 1), group(base)),
        "no": (moved(0.1, 1), group(base)),
    }
    found = compare_all(pairs)
    assert list(found) == list(pairs)
    assert {name: comparison.family for name, comparison in found.items()} == {"sure": 3, "middle": 2, "no": 1}
    values = [stats.ttest_rel([run.rsum for run in a], [run.rsum for run in b]).pvalue for a, b in pairs.values()]
    assert [comparison.p_value for comparison in found.values()] == pytest.approx(
        [min(1, p * found[name].family) for name, p in zip(pairs, values, strict=True)]
    )
    # From the first that is not significant on, none is: "middle" alone would be, one of two it is not.
    close = {name: (moved(by, 1), group(base)) for name, by in (("first", 1.55), ("second", 1.5))}
    p = [stats.ttest_rel([run.rsum for run in a], [run.rsum for run in b]).pvalue for a, b in close.values()]
    assert 0.025 < p[0] < p[1] < 0.05, p
    assert {name: (c.family, c.winner) for name, c in compare_all(close).items()} == {
        "first": (2, ""),
        "second": (2, ""),
    }
