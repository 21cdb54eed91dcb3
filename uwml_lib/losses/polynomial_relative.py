"""The polynomial loss on relative similarities."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from uwml_lib.losses.base import PairWeights, Reduction, ScoreMatrixLoss, shares
from uwml_lib.losses.horner import check_coefficients, derivative, polynomial


class PolynomialRelativeLoss(ScoreMatrixLoss):
    r"""A polynomial of how a negative compares with its positive, so that a pair's weight is one of that too.

    The TPAMI extension of Wei et al. names a loss of relative similarities; its formula is unverified, and this is the
    project's reading of it. With R the polynomial, [x]_+ = max(x, 0), and the informative negatives of anchor i
    N_i = {j : S_ij + margin > S_ii}, an anchor contributes, if N_i is not empty,

        hardest:  [R(n - S_ii)]_+   with n = max_j S_ij
        average:  mean_{j in N_i} [R(S_ij - S_ii)]_+

    and nothing otherwise. There is no term of the positive alone: its weight is the sum of its negatives' weights.

    Parameters
        coefficients: of R in ascending powers; None, this project's choice, is (margin + x)^2, which at margin 0.2 is
            (0.04, 0.4, 1). What the source uses is unverified.
        margin: how far below its positive a negative still informs; the released self-similarity loss uses 0.2.
        negatives: "hardest" or "average"; the released self-similarity loss uses "hardest".
        reduction: "mean" or "sum"; the released self-similarity loss uses "mean".
        check_finite: see `ScoreMatrixLoss`.
    """

    dense_negatives = "average"

    def __init__(
        self,
        coefficients: Sequence[float] | None = None,
        margin: float = 0.2,
        negatives: Literal["hardest", "average"] = "hardest",
        reduction: Reduction = "mean",
        check_finite: bool | None = None,
    ) -> None:
        super().__init__(margin, reduction, check_finite, negatives)
        self.coefficients = coefficients if coefficients is None else check_coefficients("coefficients", coefficients)
        self.R = (margin * margin, 2 * margin, 1.0) if self.coefficients is None else self.coefficients

    def direction(self, scores: Tensor, negative_mask: Tensor) -> Tensor:
        x, share = self._compared(scores, negative_mask)
        return (polynomial(x, self.R).clamp(min=0) * share).sum()

    def pairs(self, scores: Tensor, p: Tensor, negative_mask: Tensor) -> tuple[Tensor, Tensor]:
        return polynomial(scores - p, self.R).clamp(min=0), negative_mask & ~(scores + self.margin <= p)

    def direction_weights(self, scores: Tensor, negative_mask: Tensor) -> PairWeights:
        """An informative negative has the weight R'(S_ij - S_ii) times its share, zero where the clamp bites."""
        x, share = self._compared(scores, negative_mask)
        negative = polynomial(x, derivative(self.R)) * share * (polynomial(x, self.R) >= 0)
        return PairWeights(negative.sum(dim=1), negative)

    def _compared(self, scores: Tensor, negative_mask: Tensor) -> tuple[Tensor, Tensor]:
        p = scores.diagonal()[:, None]
        informative = negative_mask & ~(scores + self.margin <= p)
        return (scores - p).masked_fill(~informative, 0), shares(scores, informative, self.negatives)
