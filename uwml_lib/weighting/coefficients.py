"""Coefficients of the polynomial loss: what given ones do to each similarity, and how to find those you want.

The loss pulls a positive of similarity p with the weight -P'(p) where P(p) > 0, and pushes a negative of similarity n
with Q'(n) where Q(n) > 0; elsewhere the clamp makes the weight zero. Coefficients are in ascending powers throughout.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.polynomial import Polynomial

from uwml_lib.losses import PolynomialLoss

Range = tuple[float, float]
Scores = Sequence[float] | np.ndarray
RELEASED_RANGE: Range = (0.35, 1.0)
"""Similarities that the released coefficients presuppose: above the upper root of Q, up to a cosine's largest value."""

RIGHT, NOTHING, WRONG_WAY = "moved the right way", "not moved", "moved the wrong way"
MIDDLE = 0.98  # of a model's scores; the rest is left out of their range
TOLERANCE = 1e-9
SHORTEST = 1e-7  # stretch worth telling


class Zone(NamedTuple):
    """A stretch of similarities in which the loss does one thing: moves pairs the right way, the wrong way, or not."""

    pair: str
    low: float
    high: float
    effect: str


class Description(NamedTuple):
    """What a polynomial loss does over a range of similarities.

    zones: stretches, positives first. roots: of P and Q, all real ones, also outside the range. warnings: sentences,
    none if every pair in its range is pulled or pushed the right way.
    """

    zones: tuple[Zone, ...]
    roots: dict[str, tuple[float, ...]]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        words = [f"{pair}: {low:+.4f} to {high:+.4f} {effect}" for pair, low, high, effect in self.zones]
        return "\n".join([*words, *(f"Warning: {warning}" for warning in self.warnings)])


class Coefficients(NamedTuple):
    """Of P and Q, in ascending powers: `PolynomialLoss(*coefficients)`."""

    positive: tuple[float, ...]
    negative: tuple[float, ...]


def describe(
    loss: PolynomialLoss, score_range: Range = (-1.0, 1.0), negative_range: Range | None = None
) -> Description:
    """Say where the loss pulls and pushes as it should, does nothing, or works the wrong way.

    score_range: the similarities that a model's positives really have, low and high, and its negatives' too unless
    `negative_range` is given; 1 % and 99 % quantiles are a good choice. With clamp="sum" a pair's fate depends on its
    partner: the zones are then those for the partner that makes the sum smallest within its own range. Raises
    ValueError for a loss without coefficients or a range that is none.
    """
    if not isinstance(loss, PolynomialLoss):
        raise ValueError(f"loss: found {type(loss).__name__}, expected a PolynomialLoss; weight_curve shows any loss")
    ranges = dict(zip(("positive", "negative"), _ranges(score_range, negative_range), strict=True))
    polynomials = {"positive": Polynomial(loss.positive), "negative": Polynomial(loss.negative)}
    lowest = {pair: _minimum(polynomials[pair], ranges[pair]) for pair in polynomials}
    zones: list[Zone] = []
    warnings = []
    for pair, partner, sign in (("positive", "negative", -1), ("negative", "positive", 1)):
        clamped = polynomials[pair] + (lowest[partner] if loss.clamp == "sum" else 0)
        found = _zones(pair, clamped, sign * polynomials[pair].deriv(), ranges[pair])
        zones += found
        low, high = ranges[pair]
        for effect in (NOTHING, WRONG_WAY):
            if idle := [zone for zone in found if zone.effect == effect]:
                share = sum(zone.high - zone.low for zone in idle) / (high - low)
                where = ", ".join(f"{zone.low:.4f} to {zone.high:.4f}" for zone in idle)
                warnings.append(f"{pair}s from {where} are {effect}, {share:.0%} of the range")
    if loss.positive_ceiling <= ranges["positive"][1]:
        warnings.append(f"positives from {loss.positive_ceiling:g} on are skipped; set positive_ceiling to None")
    roots = {pair: _real_roots(polynomial) for pair, polynomial in polynomials.items()}
    return Description(tuple(zones), roots, tuple(warnings))


def from_weights(
    positive: Mapping[float, float],
    negative: Mapping[float, float],
    score_range: Range,
    negative_range: Range | None = None,
) -> Coefficients:
    """Find coefficients that give pairs of certain similarities certain weights.

    positive, negative: similarity -> weight; two of them give quadratics as released, k polynomials of order k.
    score_range, negative_range: as in `describe`, where the loss must behave; the constant terms are the smallest
    with which the clamp never bites there. Raises ValueError if within its range a weight falls below zero, the
    positives' weights do not fall with the similarity, or the negatives' do not rise: it would move most what needs it
    least.
    """
    pulled, pushed = _ranges(score_range, negative_range)
    return Coefficients(
        _antiderivative("positive", positive, pulled, -1), _antiderivative("negative", negative, pushed, 1)
    )


def from_scores(positive_scores: Scores, negative_scores: Scores) -> Coefficients:
    """Propose coefficients for the scores a model gives: the released weights, stretched over where its scores lie.

    positive_scores: of true pairs. negative_scores: of the hardest negatives. The released range 0.35 to 1 is stretched
    over the middle 98 % of either. A proposal, not a promise: whether it helps is for dev to say. Raises ValueError for
    too few scores, for such that are not finite, and for such that are all equal.
    """
    ranges = _middle("positive_scores", positive_scores), _middle("negative_scores", negative_scores)
    released = PolynomialLoss()
    pull, push = -Polynomial(released.positive).deriv(), Polynomial(released.negative).deriv()
    positive, negative = (
        {score: float(weight(place)) for score, place in zip(scores, RELEASED_RANGE, strict=True)}
        for weight, scores in zip((pull, push), ranges, strict=True)
    )
    return from_weights(positive, negative, *ranges)


def _antiderivative(name: str, weights: Mapping[float, float], score_range: Range, sign: int) -> tuple[float, ...]:
    """Coefficients of the polynomial whose derivative, times `sign`, goes through the wanted weights."""
    if not weights or not np.isfinite([*weights, *weights.values()]).all():
        raise ValueError(f"{name}: found {dict(weights)!r}, expected similarities and their weights, finite numbers")
    weight = Polynomial.fit([*weights], [*weights.values()], len(weights) - 1).convert()
    where = f"from {score_range[0]:g} to {score_range[1]:g}"
    if _minimum(weight, score_range) < -TOLERANCE:
        raise ValueError(f"{name}: the weight is below 0 somewhere {where}; ask for other weights")
    if _minimum(sign * weight.deriv(), score_range) < -TOLERANCE:
        way = "fall" if sign < 0 else "rise"
        raise ValueError(f"{name}: the weight does not {way} everywhere {where}; ask for other weights")
    loss = (sign * weight).integ()
    return tuple(float(value) for value in (loss - _minimum(loss, score_range)).coef)


def _zones(pair: str, loss: Polynomial, weight: Polynomial, score_range: Range) -> list[Zone]:
    """Cut the range where the clamp begins to bite or the weight changes its sign; join neighbours of one effect."""
    low, high = score_range
    cuts = [low]
    for x in sorted((*_real_roots(loss), *_real_roots(weight))):
        if cuts[-1] + SHORTEST < x < high - SHORTEST:  # a double root cuts once
            cuts.append(x)
    zones: list[Zone] = []
    for start, end in itertools.pairwise([*cuts, high]):
        middle = (start + end) / 2
        effect = NOTHING if loss(middle) <= 0 or weight(middle) == 0 else RIGHT if weight(middle) > 0 else WRONG_WAY
        if zones and zones[-1].effect == effect:
            start = zones.pop().low
        zones.append(Zone(pair, start, end, effect))
    return zones


def _real_roots(polynomial: Polynomial) -> tuple[float, ...]:
    # A leading coefficient that is next to nothing has its root next to infinity, and spoils the others.
    roots = polynomial.trim(TOLERANCE * abs(polynomial.coef).max()).roots()
    return tuple(sorted(float(root.real) for root in roots if abs(root.imag) < TOLERANCE))


def _minimum(polynomial: Polynomial, score_range: Range) -> float:
    low, high = score_range
    inside = [root for root in _real_roots(polynomial.deriv()) if low < root < high]
    return float(min(polynomial(x) for x in (low, high, *inside)))


def _middle(name: str, scores: Scores) -> Range:
    array = np.asarray(scores, dtype=float).ravel()
    if len(array) < 2 or not np.isfinite(array).all():
        raise ValueError(f"{name}: found {len(array)} numbers, expected at least two, all finite")
    low, high = np.quantile(array, [(1 - MIDDLE) / 2, (1 + MIDDLE) / 2]).tolist()
    return _range(name, (low, high))


def _ranges(score_range: Range, negative_range: Range | None) -> tuple[Range, Range]:
    """Those of the positives and of the negatives, checked."""
    positives = _range("score_range", score_range)
    return positives, _range("negative_range", negative_range) if negative_range else positives


def _range(name: str, values: Range) -> Range:
    low, high = (float(value) for value in values)
    if not low < high or not np.isfinite([low, high]).all():
        raise ValueError(f"{name}: found {low:g} to {high:g}, expected two finite numbers, the lower first")
    return low, high
