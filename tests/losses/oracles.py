"""Every loss again, as plain Python loops over numbers: slow, and too plain to be wrong in the same way."""

from functools import singledispatch
from math import exp, inf, log1p

import torch

from uwml_lib import losses


@singledispatch
def anchor(loss, p, negatives, frozen):
    """What one anchor contributes, from its positive, its negatives, and the same two where they are constants."""
    raise TypeError(f"no oracle for {type(loss).__name__}")


def naive_loss(loss, scores, image_ids=None, frozen=None, caption_ids=None, negatives=None):
    """The loss of a score matrix; `frozen` is the matrix that constants are taken from, by default the same."""
    size, width = scores.shape
    images = [*(range(size) if image_ids is None else image_ids.tolist()), *[None] * (width - size)]
    captions = range(width) if caption_ids is None else caption_ids.tolist()
    frozen = scores if frozen is None else frozen
    may_be = torch.ones(size, width) if negatives is None else negatives
    total = 0.0
    for D, F, M in zip(*((x.tolist(), x.T.tolist()) for x in (scores, frozen, may_be)), strict=True):
        for i in range(size):  # columns beyond are anchors of no direction
            partners = range(len(D[i]))
            others = [j for j in partners if images[j] != images[i] and captions[j] != captions[i] and M[i][j]]
            total += anchor(loss, D[i][i], [D[i][j] for j in others], (F[i][i], [F[i][j] for j in others]))
    return total / size if loss.reduction == "mean" else total


def evaluate(coefficients, x):
    return sum(coefficient * x**power for power, coefficient in enumerate(coefficients))


def within(margin, p, negatives):
    return [n for n in negatives if n + margin > p]


def log_one_plus_exp(x):
    return log1p(exp(x)) if x < 0 else x + log1p(exp(-x))


@anchor.register
def _(loss: losses.PolynomialLoss, p, negatives, frozen):
    informative = within(loss.margin, p, negatives)
    if not informative or p >= loss.positive_ceiling:
        return 0.0
    if loss.negatives == "hardest":
        informative = [max(informative)]
    P = evaluate(loss.positive, p)
    total = 0.0
    for n in informative:
        Q = evaluate(loss.negative, n)
        total += max(P, 0.0) + max(Q, 0.0) if loss.clamp == "each" else max(P + Q, 0.0)
    return total / len(informative)


@anchor.register
def _(loss: losses.PolynomialRelativeLoss, p, negatives, frozen):
    informative = within(loss.margin, p, negatives)
    if not informative:
        return 0.0
    if loss.negatives == "hardest":
        informative = [max(informative)]
    if loss.coefficients is None:
        return sum((loss.margin + n - p) ** 2 for n in informative) / len(informative)
    return sum(max(evaluate(loss.coefficients, n - p), 0.0) for n in informative) / len(informative)


@anchor.register
def _(loss: losses.TripletLoss, p, negatives, frozen):
    hinges = [max(loss.margin + n - p, 0.0) for n in negatives]
    return sum(hinges) if loss.negatives == "all" else max(hinges, default=0.0)


@anchor.register
def _(loss: losses.TripletSemihardLoss, p, negatives, frozen):
    below = [n for n in negatives if n < p]
    return max(loss.margin + max(below) - p, 0.0) if below else 0.0


@anchor.register
def _(loss: losses.TripletSoftLoss, p, negatives, frozen):
    soft = [log_one_plus_exp(loss.scale * (n - p)) / loss.scale for n in negatives]
    return sum(soft) if loss.negatives == "all" else max(soft, default=0.0)


@anchor.register
def _(loss: losses.InfoNCELoss, p, negatives, frozen):
    return log1p(sum(exp((n - p) / loss.temperature) for n in negatives)) / 2


@anchor.register
def _(loss: losses.SigmoidLoss, p, negatives, frozen):
    total = log_one_plus_exp(-(loss.scale * p + loss.bias))
    for n in negatives:
        total += log_one_plus_exp(loss.scale * n + loss.bias)
    return total / 2


@anchor.register
def _(loss: losses.MultiSimilarityLoss, p, negatives, frozen):
    informative = within(inf if loss.margin is None else loss.margin, p, negatives)
    if not informative:
        return 0.0
    pull = log1p(exp(-loss.alpha * (p - loss.base))) / loss.alpha
    return pull + log1p(sum(exp(loss.beta * (n - loss.base)) for n in informative)) / loss.beta


@anchor.register
def _(loss: losses.CircleLoss, p, negatives, frozen):
    m, gamma = loss.relaxation, loss.gamma
    frozen_p, frozen_negatives = frozen
    pull = exp(-gamma * max(1 + m - frozen_p, 0.0) * (p - (1 - m)))
    push = 0.0
    for n, frozen_n in zip(negatives, frozen_negatives, strict=True):
        push += exp(gamma * max(frozen_n + m, 0.0) * (n - m))
    return log1p(push * pull)
