"""The polynomial loss over all informative negatives."""

from collections.abc import Sequence
from typing import Literal

from uwml_lib.losses.base import Reduction
from uwml_lib.losses.polynomial import PolynomialLoss


class PolynomialAverageLoss(PolynomialLoss):
    r"""`PolynomialLoss` over the mean of an anchor's informative negatives instead of its hardest one.

    Wei et al., CVPR 2020, name this form as far as is known; its details here are unverified, and the released code has
    the hardest form alone. By default an anchor with p = S_ii and informative negatives N_i contributes

        [P(p)]_+ + mean_{j in N_i} [Q(S_ij)]_+

    Parameters
        positive: coefficients of P in ascending powers; the release uses (0.5, -0.7, 0.2).
        negative: coefficients of Q in ascending powers; the release uses (0.03, -0.4, 0.9).
        margin: how far below its positive a negative still informs; the release uses 0.2.
        negatives: "average" or "hardest"; the release uses "hardest".
        clamp: [.]_+ on "each" polynomial or on their "sum"; the release uses "each".
        positive_ceiling: positives at or above it are skipped, None for none; the release uses 1 - 1e-5.
        reduction: "mean" or "sum"; the release uses "mean".
        check_finite: see `ScoreMatrixLoss`.
    """

    def __init__(
        self,
        positive: Sequence[float] = (0.5, -0.7, 0.2),
        negative: Sequence[float] = (0.03, -0.4, 0.9),
        margin: float = 0.2,
        negatives: Literal["hardest", "average"] = "average",
        clamp: Literal["each", "sum"] = "each",
        positive_ceiling: float | None = 1 - 1e-5,
        reduction: Reduction = "mean",
        check_finite: bool | None = None,
    ) -> None:
        super().__init__(positive, negative, margin, negatives, clamp, positive_ceiling, reduction, check_finite)
