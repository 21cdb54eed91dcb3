"""The bidirectional triplet loss."""

from typing import Literal

import torch
from torch import Tensor

from uwml_lib.losses.base import PairWeights, Reduction, ScoreMatrixLoss, hardest_negatives, shares


class TripletLoss(ScoreMatrixLoss):
    r"""Hinge on the gap between a positive and its negatives, over both retrieval directions.

    Kiros et al. 2014 (all negatives); Faghri et al., VSE++, 2018 (hardest negative); `ContrastiveLoss` of SCAN.
    An anchor contributes

        hardest:  [margin + max_j S_ij - S_ii]_+
        all:      sum_j [margin + S_ij - S_ii]_+

    so an informative pair has weight 1 whatever its similarity.

    Parameters
        margin: wanted gap; SCAN uses 0.2.
        negatives: "hardest" or "all"; SCAN uses "hardest" with `--max_violation`.
        reduction: "sum", or "mean", which divides by N; SCAN uses "sum".
        check_finite: see `ScoreMatrixLoss`.
    """

    dense_negatives = "all"

    def __init__(
        self,
        margin: float = 0.2,
        negatives: Literal["hardest", "all"] = "hardest",
        reduction: Reduction = "sum",
        check_finite: bool | None = None,
    ) -> None:
        super().__init__(margin, reduction, check_finite, negatives)

    def direction(self, scores: Tensor, negative_mask: Tensor) -> Tensor:
        p = scores.diagonal()
        if self.negatives == "hardest":
            return self.of_hardest(p, hardest_negatives(scores, negative_mask))
        hinges, counted = self.pairs(scores, p[:, None], negative_mask)
        in_float32 = torch.promote_types(hinges.dtype, torch.float32)  # float16 may not hold the sum, but the mean
        return hinges.masked_fill(~counted, 0).sum(dtype=in_float32)

    def pairs(self, scores: Tensor, p: Tensor, negative_mask: Tensor) -> tuple[Tensor, Tensor]:
        return (self.margin + scores - p).clamp(min=0), negative_mask

    def of_hardest(self, p: Tensor, n: Tensor) -> Tensor:
        """Sum over anchors, from the scores of their positives p (N,) and hardest negatives n (..., N)."""
        return (self.margin + n - p).clamp(min=0).sum()

    def direction_weights(self, scores: Tensor, negative_mask: Tensor) -> PairWeights:
        """Every informative negative has the weight 1 (split among tied hardest ones), its positive their sum."""
        informative = negative_mask & (self.margin + scores - scores.diagonal()[:, None] >= 0)
        negative = shares(scores, informative, self.negatives)
        return PairWeights(negative.sum(dim=1), negative)


class TripletAllLoss(TripletLoss, negatives="all"):
    r"""`TripletLoss` over all negatives of an anchor instead of its hardest one.

    Kiros et al. 2014; `ContrastiveLoss` of SCAN without `--max_violation`. By default an anchor contributes

        sum_j [margin + S_ij - S_ii]_+

    Parameters are those of `TripletLoss`, with another default for
        negatives: "all" or "hardest"; Kiros et al. use "all".
    """
