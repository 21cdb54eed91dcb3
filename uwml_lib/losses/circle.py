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
    gathers = "log_sum_exp"
    against_positive = False

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

    def pairs(self, scores: Tensor, p: Tensor, negative_mask: Tensor) -> tuple[Tensor, Tensor]:
        return self._push(widened(scores))[0], negative_mask

    def anchors(self, p: Tensor, gathered: Tensor) -> Tensor:
        return softplus(gathered + self._pull(widened(p))[0]).sum()

    def direction_weights(self, scores: Tensor, negative_mask: Tensor) -> PairWeights:
        """gamma times the factor a times what the logits leave undone, which the negatives share by softmax."""
        (pull, a_positive), (push, a_negative) = self._pull(widened(scores.diagonal())), self._push(widened(scores))
        others = log_sum_exp(push, negative_mask)
        undone = self.gamma * torch.sigmoid(others + pull)
        share = (push - others[:, None]).exp().masked_fill(~negative_mask, 0)
        return PairWeights(undone * a_positive, undone[:, None] * share * a_negative)

    def _pull(self, p: Tensor) -> tuple[Tensor, Tensor]:
        a = (1 + self.relaxation - p.detach()).clamp(min=0)
        return -self.gamma * a * (p - 1 + self.relaxation), a

    def _push(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        a = (scores.detach() + self.relaxation).clamp(min=0)
        return self.gamma * a * (scores - self.relaxation), a
