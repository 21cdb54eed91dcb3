"""The polynomial loss as a public re-implementation has it."""

from collections.abc import Sequence
from typing import Literal

from uwml_lib.losses.base import Reduction
from uwml_lib.losses.polynomial import PolynomialLoss


class PolynomialPublicVariantLoss(PolynomialLoss):
    r"""`PolynomialLoss` with the coefficients and the clamp of a public TensorFlow re-implementation.

    Unverified as the paper's: the released code differs in Q and in where it clamps. By default an informative anchor
    with p = S_ii and hardest negative n contributes

        [P(p) + Q(n)]_+   with P(p) = 0.2 p^2 - 0.7 p + 0.5,  Q(n) = 1.2 n^2 - 0.3 n + 0.03

    Parameters
        positive: coefficients of P in ascending powers; the re-implementation, as the release, uses (0.5, -0.7, 0.2).
        negative: coefficients of Q in ascending powers; the re-implementation uses (0.03, -0.3, 1.2).
        margin: how far below its positive a negative still informs; the release uses 0.2.
        negatives: "hardest" or "average"; the release uses "hardest".
        clamp: [.]_+ on the "sum" of the polynomials or on "each"; the re-implementation uses "sum".
        positive_ceiling: positives at or above it are skipped, None for none; the release uses 1 - 1e-5.
        reduction: "mean" or "sum"; the release uses "mean".
        check_finite: see `ScoreMatrixLoss`.
    """

    def __init__(
        self,
        positive: Sequence[float] = (0.5, -0.7, 0.2),
        negative: Sequence[float] = (0.03, -0.3, 1.2),
        margin: float = 0.2,
        negatives: Literal["hardest", "average"] = "hardest",
        clamp: Literal["each", "sum"] = "sum",
        positive_ceiling: float | None = 1 - 1e-5,
        reduction: Reduction = "mean",
        check_finite: bool | None = None,
    ) -> None:
        super().__init__(positive, negative, margin, negatives, clamp, positive_ceiling, reduction, check_finite)
