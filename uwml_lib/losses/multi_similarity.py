"""The multi-similarity loss."""

import torch
from torch import Tensor

from uwml_lib.losses.base import PairWeights, Reduction, ScoreMatrixLoss, check_number, log_sum_exp, softplus, widened


class MultiSimilarityLoss(ScoreMatrixLoss):
    r"""Weigh a pair by its own similarity and by those of the anchor's other pairs, after dropping the easy ones.

    Wang et al., Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning, CVPR 2019; here with one
    positive for each anchor and in both retrieval directions. With p = S_ii and the informative negatives
    N_i = {j : S_ij + margin > S_ii}, an anchor contributes, if N_i is not empty,

        log(1 + exp(-alpha (p - base))) / alpha + log(1 + sum_{j in N_i} exp(beta (S_ij - base))) / beta

    and nothing otherwise; with one positive the source's two rules of mining say the same. The source's code also drops
    positives from 1 - 1e-5 on, to be rid of an anchor's similarity with itself, which is not done here.

    Parameters
        alpha: sharpness for positives; the source uses 2.
        beta: sharpness for negatives; the source uses 50, some copies of its code 40.
        base: similarity from which pairs weigh much; the source uses 0.5, some copies of its code 1.
        margin: how far below its positive a negative still informs, the source's epsilon; it uses 0.1. None drops
            nothing.
        reduction: "mean" or "sum"; the source, with one direction, uses "mean".
        check_finite: see `ScoreMatrixLoss`.
    """

    needs_margin = False
    gathers = "log_sum_exp"

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        base: float = 0.5,
        margin: float | None = 0.1,
        reduction: Reduction = "mean",
        check_finite: bool | None = None,
    ) -> None:
        super().__init__(margin, reduction, check_finite)
        self.alpha = check_number("alpha", alpha, above=0)
        self.beta = check_number("beta", beta, above=0)
        self.base = check_number("base", base)

    def pairs(self, scores: Tensor, p: Tensor, negative_mask: Tensor) -> tuple[Tensor, Tensor]:
        scores, p = widened(scores), widened(p)
        if self.margin is not None:
            negative_mask = negative_mask & ~(scores + self.margin <= p)
        return self.beta * (scores - self.base), negative_mask

    def anchors(self, p: Tensor, gathered: Tensor) -> Tensor:
        pull = softplus(-self.alpha * (widened(p) - self.base))
        without_any = gathered <= torch.finfo(gathered.dtype).min / 2  # see `log_sum_exp`; sums of such, too
        pull = torch.where(without_any, 0, pull) / self.alpha
        return (pull + softplus(gathered) / self.beta).sum()

    def direction_weights(self, scores: Tensor, negative_mask: Tensor) -> PairWeights:
        """sigmoid(-alpha (p - base)) for the positive, exp(beta (S_ij - base)) over one and their sum for negatives."""
        p = widened(scores.diagonal())
        logits, informative = self.pairs(scores, p[:, None], negative_mask)
        positive = torch.sigmoid(-self.alpha * (p - self.base)).masked_fill(~informative.any(dim=1), 0)
        negative = (logits - softplus(log_sum_exp(logits, informative))[:, None]).exp()
        return PairWeights(positive, negative.masked_fill(~informative, 0))
