"""A loss made of weights: say how strongly each pair is pulled or pushed, and train with exactly that."""

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from uwml_lib.losses.base import PairWeights, Reduction, ScoreMatrixLoss, shares
from uwml_lib.losses.horner import is_real

Weight = Callable[..., Tensor] | Sequence[tuple[float, float]]


class FromWeights(ScoreMatrixLoss):
    r"""The framework of universal weighting itself: two weight functions, whether or not they are of any loss.

    Wei et al., CVPR 2020, weigh a pair by a function of its similarity; Xuan and Chen, Dissecting Deep Metric Learning
    Losses for Image-Text Retrieval, 2022, by any function of the anchor's pairs, which need not be integrable. With
    p = S_ii, weights w+ and w-, taken as constants, and the informative negatives N_i = {j : S_ij + margin > S_ii}, an
    anchor contributes

        hardest:  w-(p, n) n - w+(p, n) p   with n = max_{j in N_i} S_ij
        average:  mean_{j in N_i} (w-(p, S_ij) S_ij - w+(p, S_ij) p)

    and nothing if N_i is empty. The gradient is the weights; the value has no meaning beyond that, and may be negative.

    Parameters
        positive, negative: w+ of the positive and w- of a negative. Each is a function of two tensors of scores, the
            positive's and the negative's, or of one, the pair's own; or points (score, weight) in ascending order of
            score, between which the weight of a pair's own score is linear and beyond which it is constant. Functions
            work element by element. Scores go to arguments without a default; torch's own functions, whose signature
            cannot be read, get the pair's own.
        margin: how far below its positive a negative still informs; None, as a weight may be 0 by itself, for all.
        negatives: "hardest" or "average".
        reduction: "mean" or "sum".
        check_finite: see `ScoreMatrixLoss`.
    """

    needs_margin = False
    dense_negatives = "average"

    def __init__(
        self,
        positive: Weight,
        negative: Weight,
        margin: float | None = None,
        negatives: Literal["hardest", "average"] = "hardest",
        reduction: Reduction = "mean",
        check_finite: bool | None = None,
    ) -> None:
        super().__init__(margin, reduction, check_finite, negatives)
        self.positive, self.negative = check_weight("positive", positive), check_weight("negative", negative)

    def direction(self, scores: Tensor, negative_mask: Tensor) -> Tensor:
        positive, negative = self.direction_weights(scores.detach(), negative_mask)
        return (negative * scores).sum() - (positive * scores.diagonal()).sum()

    def pairs(self, scores: Tensor, p: Tensor, negative_mask: Tensor) -> tuple[Tensor, Tensor]:
        informative = self._informative(scores, p, negative_mask)
        positive, negative = (torch.where(informative, w, 0) for w in self._weights(scores.detach(), p.detach()))
        return negative * scores - positive * p, informative

    def direction_weights(self, scores: Tensor, negative_mask: Tensor) -> PairWeights:
        """The two functions, each informative negative by its share: 1 for the hardest, 1 / |N_i| for the average."""
        p = scores.diagonal()[:, None]
        share = shares(scores, self._informative(scores, p, negative_mask), self.negatives)
        positive, negative = (torch.where(share > 0, weight * share, 0) for weight in self._weights(scores, p))
        return PairWeights(positive.sum(dim=1), negative)

    def _informative(self, scores: Tensor, p: Tensor, negative_mask: Tensor) -> Tensor:
        return negative_mask if self.margin is None else negative_mask & ~(scores + self.margin <= p)

    @torch.no_grad()
    def _weights(self, scores: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        return weigh("positive", self.positive, p, p, scores), weigh("negative", self.negative, scores, p, scores)


def check_weight(name: str, weight: Weight) -> Weight:
    """Return a weight; raise ValueError unless it is a function of one or two scores, or ascending points."""
    if callable(weight):
        if (count := scores_taken(weight)) not in (1, 2):
            raise ValueError(f"{name}: found {weight!r:.80}, which takes {count} scores, expected one or two")
        return weight
    points = weight if isinstance(weight, Sequence) and not isinstance(weight, str) else ()
    if len(points) < 2 or not all(
        isinstance(point, Sequence) and len(point) == 2 and all(map(is_real, point)) for point in points
    ):
        raise ValueError(f"{name}: found {weight!r:.80}, expected a function or two points (score, weight) at least")
    if any(left[0] >= right[0] for left, right in zip(points, points[1:], strict=False)):
        raise ValueError(f"{name}: found {weight!r:.80}, expected points in ascending order of score")
    return points


def scores_taken(weight: Callable[..., Tensor]) -> int:
    """How many scores a function takes: its arguments without a default."""
    try:
        signature = inspect.signature(weight.forward if isinstance(weight, nn.Module) else weight)
    except ValueError:  # of torch's own functions Python knows none
        return 1
    of_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in of_place and one.default is one.empty for one in signature.parameters.values())


def weigh(name: str, weight: Weight, own: Tensor, p: Tensor, n: Tensor) -> Tensor:
    """Return the weights of pairs with the scores `own`, whose anchors' positives are p and negatives n."""
    if not callable(weight):
        return interpolated(own, weight)
    found = weight(p, n) if scores_taken(weight) == 2 else weight(own)
    wanted = torch.broadcast_shapes(own.shape, p.shape, n.shape)
    shapes = [(), *itertools.product(*((1, size) for size in wanted))]  # a number, or the same along some dimensions
    if not (is_real(found) or isinstance(found, Tensor) and tuple(found.shape) in shapes):
        what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else repr(found)
        raise ValueError(f"{name}: the function returned {what}, expected a weight for each score, {tuple(own.shape)}")
    return found


def interpolated(x: Tensor, points: Sequence[tuple[float, float]]) -> Tensor:
    """Return the piecewise linear function through (K, 2) points at x, constant beyond them; shape and dtype of x."""
    total = torch.full_like(x, points[0][1])
    for (left, below), (right, above) in zip(points, points[1:], strict=False):
        total = total + (above - below) * ((x - left) / (right - left)).clamp(0, 1)
    return total
