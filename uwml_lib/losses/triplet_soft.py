"""The bidirectional triplet loss with a soft margin."""

from typing import Literal

import torch
from torch import Tensor

from uwml_lib.losses.base import PairWeights, Reduction, ScoreMatrixLoss, check_number, shares, softplus, widened


class TripletSoftLoss(ScoreMatrixLoss):
    r"""Softplus instead of a hinge on the gap between a positive and its negatives, over both retrieval directions.

    Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017, there on distances and in one
    direction. With n = max_j S_ij an anchor contributes

        hardest:  log(1 + exp(scale (n - S_ii))) / scale
        all:      sum_j log(1 + exp(scale (S_ij - S_ii))) / scale

    so a pair's weight falls smoothly from 1 to 0 and no pair is ever done with. The greater the scale, the nearer to a
    hinge without a margin. An anchor without negatives contributes nothing.

    Parameters
        scale: steepness; the source uses 1, on distances that may be far larger than cosines.
        negatives: "hardest" or "all"; the source uses both, "hardest" by preference.
        reduction: "sum", or "mean", which divides by N; the source's equation uses "sum".
        check_finite: see `ScoreMatrixLoss`.
    """

    needs_margin = False
    dense_negatives = "all"

    def __init__(
        self,
        scale: float = 1.0,
        negatives: Literal["hardest", "all"] = "hardest",
        reduction: Reduction = "sum",
        check_finite: bool | None = None,
    ) -> None:
        super().__init__(None, reduction, check_finite, negatives)
        self.scale = check_number("scale", scale, above=0)

    def direction(self, scores: Tensor, negative_mask: Tensor) -> Tensor:
        gaps, share = self._gaps(scores, negative_mask)
        return (softplus(gaps) * share).sum() / self.scale

    def pairs(self, scores: Tensor, p: Tensor, negative_mask: Tensor) -> tuple[Tensor, Tensor]:
        return softplus(self.scale * (scores - p)) / self.scale, negative_mask

    def direction_weights(self, scores: Tensor, negative_mask: Tensor) -> PairWeights:
        """A negative has the weight sigmoid(scale (S_ij - S_ii)) times its share, its positive the sum of them."""
        gaps, share = self._gaps(scores, negative_mask)
        negative = torch.sigmoid(gaps) * share
        return PairWeights(negative.sum(dim=1), negative)

    def _gaps(self, scores: Tensor, negative_mask: Tensor) -> tuple[Tensor, Tensor]:
        scores = widened(scores)
        gaps = self.scale * (scores - scores.diagonal()[:, None])
        return gaps.masked_fill(~negative_mask, 0), shares(scores, negative_mask, self.negatives)
