"""What coefficients do to which similarities, and coefficients for wanted weights."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uwml_lib.losses import PolynomialLoss, TripletLoss
from uwml_lib.weighting import Coefficients, describe, from_scores, from_weights, one_anchor, weight_curve
from uwml_lib.weighting.coefficients import NOTHING, RIGHT, WRONG_WAY


def test_the_released_coefficients():
    found = describe(PolynomialLoss())
    lower, upper = (0.4 - np.sqrt(0.16 - 4 * 0.9 * 0.03)) / 1.8, (0.4 + np.sqrt(0.16 - 4 * 0.9 * 0.03)) / 1.8
    assert found.roots["negative"] == pytest.approx((lower, upper))
    assert found.roots["positive"] == pytest.approx((1, 2.5))
    assert [(zone.pair, zone.effect) for zone in found.zones] == [
        ("positive", RIGHT), ("negative", WRONG_WAY), ("negative", NOTHING), ("negative", RIGHT),
    ]  # fmt: skip
    assert [zone.low for zone in found.zones[1:]] == pytest.approx([-1, lower, upper])
    assert [zone.high for zone in found.zones[1:]] == pytest.approx([lower, upper, 1])
    text = str(found)
    assert "negatives from 0.0955 to 0.3489 are not moved, 13% of the range" in text
    assert "negatives from -1.0000 to 0.0955 are moved the wrong way, 55% of the range" in text
    assert "positives from 0.99999 on are skipped" in text


def test_a_double_root_is_no_stretch():
    negatives = [
        zone[1:] for zone in describe(PolynomialLoss(negative=(0.0, 0.0, 0.9))).zones if zone.pair == "negative"
    ]
    assert negatives == [(-1, 0, WRONG_WAY), (0, 1, RIGHT)]


def test_a_range_on_which_the_released_coefficients_are_well():
    assert describe(PolynomialLoss(), (0.4, 0.9)).warnings == ()
    assert len(describe(PolynomialLoss(), (0.4, 0.9), negative_range=(0.0, 0.9)).warnings) == 2


@pytest.mark.parametrize("clamp", ["each", "sum"])
@given(
    positive=st.lists(st.floats(-2, 2), min_size=1, max_size=4),
    negative=st.lists(st.floats(-2, 2), min_size=1, max_size=4),
)
def test_zones_are_what_automatic_differentiation_finds(clamp, positive, negative):
    loss = PolynomialLoss(positive, negative, margin=4.0, clamp=clamp, positive_ceiling=None, reduction="sum")
    found = describe(loss)
    partner = {  # the partner that makes the sum smallest
        "positive": min(torch.linspace(-1, 1, 2001).tolist(), key=lambda n: np.polyval(negative[::-1], n)),
        "negative": min(torch.linspace(-1, 1, 2001).tolist(), key=lambda p: np.polyval(positive[::-1], p)),
    }
    for pair, low, high, effect in found.zones:
        if high - low < 1e-3:
            continue
        inside = torch.linspace(low, high, 7, dtype=torch.float64)[1:-1]
        value = np.polyval((positive if pair == "positive" else negative)[::-1], inside.numpy())
        if clamp == "sum":
            value = value + np.polyval((negative if pair == "positive" else positive)[::-1], partner[pair])
        inside = inside[abs(value) > 1e-4]  # where rounding does not decide on which side of the clamp it is
        if not len(inside):
            continue
        if pair == "positive":
            weights = weight_curve(loss, one_anchor(0.0, partner[pair]), (0, 0), inside)["weight"]
        else:
            weights = weight_curve(loss, one_anchor(partner[pair], 0.0), (0, 1), inside)["weight"]
        if effect == NOTHING:
            assert (weights == 0).all()
        elif effect == RIGHT:
            assert (weights >= -1e-9).all()
        else:
            assert (weights <= 1e-9).all()
    for pair in ("positive", "negative"):
        zones = [zone for zone in found.zones if zone.pair == pair]
        assert (zones[0].low, zones[-1].high) == (-1, 1)
        assert all(a.high == b.low and a.effect != b.effect for a, b in zip(zones, zones[1:], strict=False))


@given(
    at=st.lists(st.floats(-1, 1), min_size=2, max_size=3, unique_by=lambda x: round(x, 1)),
    slopes=st.tuples(st.floats(0.1, 3), st.floats(0.1, 3)),
)
def test_wanted_weights_are_given(at, slopes):
    positive = {x: 4 - slopes[0] * x for x in at}
    negative = {x: 4 + slopes[1] * x for x in at}
    found = from_weights(positive, negative, (-1, 1))
    loss = PolynomialLoss(*found, margin=4.0, positive_ceiling=None, reduction="sum")
    assert describe(loss).warnings == ()
    inside = torch.tensor([x for x in at if abs(x) < 0.999], dtype=torch.float64)
    pulled = weight_curve(loss, one_anchor(0.0, 1.0), (0, 0), inside)["weight"].tolist()
    pushed = weight_curve(loss, one_anchor(-1.0, 0.0), (0, 1), inside)["weight"].tolist()
    assert pulled == pytest.approx([positive[x] for x in inside.tolist()])
    assert pushed == pytest.approx([negative[x] for x in inside.tolist()])


def test_the_released_weights_give_the_released_coefficients():
    found = from_weights({0.4: 0.54, 1.0: 0.3}, {0.5: 0.5, 1.0: 1.4}, (0.35, 1.0))
    assert found.positive == pytest.approx((0.5, -0.7, 0.2))
    assert found.negative[1:] == pytest.approx((-0.4, 0.9))


@pytest.mark.parametrize(
    ("positive", "negative", "message"),
    [
        ({0.0: 0.5, 1.0: 0.7}, {0.0: 0.5, 1.0: 1.0}, "positive: the weight does not fall everywhere from 0 to 1"),
        ({0.0: 0.5, 1.0: 0.3}, {0.0: 1.5, 1.0: 1.0}, "negative: the weight does not rise everywhere from 0 to 1"),
        ({0.0: 0.5, 0.5: 0.1}, {0.0: 0.5, 1.0: 1.0}, "positive: the weight is below 0 somewhere from 0 to 1"),
        ({0.0: 0.5, 0.5: 0.1, 1.0: 0.4}, {0.0: 0.5}, "positive: the weight .* from 0 to 1; ask for other weights"),
        ({}, {0.0: 0.5}, "positive: found {}, expected similarities and their weights"),
        ({0.0: float("nan")}, {0.0: 0.5}, "positive: found .*nan"),
    ],
)
def test_weights_that_make_no_sense(positive, negative, message):
    with pytest.raises(ValueError, match=message):
        from_weights(positive, negative, (0, 1))


@given(centre=st.floats(-0.8, 0.8), width=st.floats(0.05, 0.4), seed=st.integers(0, 1000))
def test_a_proposal_suits_the_scores_it_was_made_for(centre, width, seed):
    generator = np.random.default_rng(seed)
    negatives, positives = generator.normal(centre, width, 500), generator.normal(centre + width, width, 500)
    found = from_scores(positives, negatives)
    low, high = np.quantile(negatives, [0.01, 0.99])
    ends = np.quantile(positives, [0.01, 0.99])
    loss = PolynomialLoss(*found, positive_ceiling=None)
    assert describe(loss, tuple(ends), (low, high)).warnings == ()
    weight = np.polynomial.Polynomial(found.negative).deriv()
    assert weight(np.array([low, high])) == pytest.approx([0.23, 1.4])
    assert np.polynomial.Polynomial(found.positive).deriv()(ends) == pytest.approx([-0.56, -0.3])


@pytest.mark.parametrize(
    ("positives", "negatives", "message"),
    [
        ([0.1], [0.1, 0.2], "positive_scores: found 1 numbers, expected at least two"),
        ([0.1, 0.2], [0.1, np.inf], "negative_scores: found 2 numbers, expected .* all finite"),
        ([0.1, 0.2], [0.3, 0.3], "negative_scores: found 0.3 to 0.3"),
    ],
)
def test_scores_that_propose_nothing(positives, negatives, message):
    with pytest.raises(ValueError, match=message):
        from_scores(positives, negatives)


def test_only_a_polynomial_loss_has_coefficients():
    with pytest.raises(ValueError, match="loss: found TripletLoss, expected a PolynomialLoss"):
        describe(TripletLoss())
    with pytest.raises(ValueError, match="score_range: found 1 to 0"):
        describe(PolynomialLoss(), (1, 0))
    assert PolynomialLoss(*Coefficients((1.0,), (2.0,))).negative == (2.0,)
