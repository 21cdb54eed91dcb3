"""The pairwise sigmoid loss."""

import torch
from torch import Tensor

from uwml_lib.losses.base import PairWeights, Reduction, ScoreMatrixLoss, check_number, softplus, widened


class SigmoidLoss(ScoreMatrixLoss):
    r"""Binary cross entropy of every pair by itself: does it belong together or not.

    Zhai et al., Sigmoid Loss for Language Image Pre-Training (SigLIP), ICCV 2023. With z_ii = 1 and z_ij = -1, the sum
    over all pairs, each counted once, siblings left out,

        L = 1/N sum_ij log(1 + exp(-z_ij (scale S_ij + bias)))

    Half of a pair belongs to its row's direction and half to its column's. A pair's weight depends on its own score
    alone, and a positive is pulled whether or not there are negatives: a batch of one has a loss too.

    Parameters
        scale: inverse temperature; the source learns it and uses 10 to start from. It is fixed here; use 1 for logits
            that are scaled already.
        bias: added to the scaled scores, so that a batch full of negatives starts from a small loss; the source learns
            it and uses -10 to start from.
        reduction: "mean", which divides the sum over all N^2 pairs by N, or "sum"; the source uses "mean".
        check_finite: see `ScoreMatrixLoss`.
    """

    needs_margin = False
    gathers = "all"
    against_positive = False

    def __init__(
        self, scale: float = 10.0, bias: float = -10.0, reduction: Reduction = "mean", check_finite: bool | None = None
    ) -> None:
        super().__init__(None, reduction, check_finite)
        self.scale = check_number("scale", scale, above=0)
        self.bias = check_number("bias", bias)

    def direction(self, scores: Tensor, negative_mask: Tensor) -> Tensor:
        logits = self.scale * widened(scores) + self.bias
        return (softplus(-logits.diagonal()).sum() + softplus(logits).masked_fill(~negative_mask, 0).sum()) / 2

    def pairs(self, scores: Tensor, p: Tensor, negative_mask: Tensor) -> tuple[Tensor, Tensor]:
        return softplus(self.scale * widened(scores) + self.bias) / 2, negative_mask

    def anchors(self, p: Tensor, gathered: Tensor) -> Tensor:
        return (softplus(-self.scale * widened(p) - self.bias) / 2 + gathered).sum()

    def direction_weights(self, scores: Tensor, negative_mask: Tensor) -> PairWeights:
        """Half of scale sigmoid(-logit) for a positive and of scale sigmoid(logit) for a negative."""
        logits = self.scale * widened(scores) + self.bias
        negative = torch.sigmoid(logits).masked_fill(~negative_mask, 0)
        return PairWeights(torch.sigmoid(-logits.diagonal()) * self.scale / 2, negative * self.scale / 2)
