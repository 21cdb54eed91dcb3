"""The circle loss."""

import torch
from torch import Tensor

from uwml_lib.losses.base import PairWeights, Reduction, ScoreMatrixLoss, check_number, log_sum_exp, softplus, widened


class CircleLoss(ScoreMatrixLoss):
    r"""Weigh every similarity by how far it is from where it should be: a positive at 1, a negative at 0.

    Sun et al., Circle Loss: A Unified Perspective of Pair Similarity Optimization, CVPR 2020; here with one positive
    for each anchor and in both retrieval directions. With m the relaxation, p = S_ii and [x]_+ = max(x, 0), an anchor
    with at least one negative contributes

        log(1 + sum_j exp(gamma a_ij (S_ij - m)) exp(-gamma a_i (p - 1 + m)))
        with  a_i = [1 + m - p]_+  and  a_ij = [S_ij + m]_+  taken as constants

    and nothing without negatives. As constants, the factors are not differentiated: so do pytorch-metric-learning and
    the implementations in use; that the paper means it so is unverified. A negative at or below -m has no weight.

    Parameters
        relaxation: m; as pytorch-metric-learning reports, the source uses 0.4 for fine-grained image retrieval and 0.25
            for faces and persons.
        gamma: scale; as reported there, the source uses 80 for fine-grained image retrieval, 256 for faces and 128 for
            persons.
        reduction: "mean" or "sum"; the source gives the loss of one anchor, pytorch-metric-learning uses the mean over
            the anchors whose loss is not zero.
        check_finite: see `ScoreMatrixLoss`.
    """

    needs_margin = False

    def __init__(
        self,
        relaxation: float = 0.4,
        gamma: float = 80.0,
        reduction: Reduction = "mean",
        check_finite: bool | None = None,
    ) -> None:
        super().__init__(None, reduction, check_finite)
        self.relaxation = check_number("relaxation", relaxation)
        self.gamma = check_number("gamma", gamma, above=0)

    def direction(self, scores: Tensor, negative_mask: Tensor) -> Tensor:
        pull, push, _, _ = self._logits(widened(scores))
        return softplus(log_sum_exp(push, negative_mask) + pull).sum()

    def direction_weights(self, scores: Tensor, negative_mask: Tensor) -> PairWeights:
        """gamma times the factor a times what the logits leave undone, which the negatives share by softmax."""
        pull, push, a_positive, a_negative = self._logits(widened(scores))
        others = log_sum_exp(push, negative_mask)
        undone = self.gamma * torch.sigmoid(others + pull)
        share = (push - others[:, None]).exp().masked_fill(~negative_mask, 0)
        return PairWeights(undone * a_positive, undone[:, None] * share * a_negative)

    def _logits(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        p, m = scores.diagonal(), self.relaxation
        a_positive, a_negative = (1 + m - p.detach()).clamp(min=0), (scores.detach() + m).clamp(min=0)
        return -self.gamma * a_positive * (p - 1 + m), self.gamma * a_negative * (scores - m), a_positive, a_negative
