"""The polynomial loss (PolyLoss) of universal weighting metric learning."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, inf

from uwml_lib.losses.base import PairWeights, Reduction, ScoreMatrixLoss, check_choice, hardest_negatives, shares
from uwml_lib.losses.horner import check_coefficients, derivative, is_real, polynomial


class PolynomialLoss(ScoreMatrixLoss):
    r"""Polynomials of the similarity as loss, so that a pair's weight is a polynomial of its similarity too.

    Wei et al., Universal Weighting Metric Learning for Cross-Modal Matching, CVPR 2020; defaults and the hardest form
    as in the released `polyloss.py`. Not the classification PolyLoss of Leng et al. 2022.

    With P, Q the two polynomials, [x]_+ = max(x, 0), p = S_ii, and the informative negatives of anchor i
    N_i = {j : S_ij + margin > S_ii}, an anchor contributes, if N_i is not empty and p < positive_ceiling,

        hardest, each:  [P(p)]_+ + [Q(n)]_+   with n = max_j S_ij
        hardest, sum:   [P(p) + Q(n)]_+
        average, each:  [P(p)]_+ + mean_{j in N_i} [Q(S_ij)]_+
        average, sum:   mean_{j in N_i} [P(p) + Q(S_ij)]_+

    and nothing otherwise: its positive is not pulled either. The loss is the sum over the anchors of both directions,
    divided by N for `reduction="mean"`. The average form is named by the paper; its details here are unverified.

    Parameters
        positive: coefficients of P in ascending powers; the release uses (0.5, -0.7, 0.2).
        negative: coefficients of Q in ascending powers; the release uses (0.03, -0.4, 0.9).
        margin: how far below its positive a negative still informs; the release uses 0.2.
        negatives: "hardest" or "average"; the release uses "hardest".
        clamp: [.]_+ on "each" polynomial or on their "sum"; the release uses "each", a public re-implementation "sum".
        positive_ceiling: positives at or above it are skipped; the release uses 1 - 1e-5. Use None, and coefficients
            chosen anew, for scores that may pass 1 (LogSumExp, Sum, scaled logits).
        reduction: "mean" or "sum"; the release uses "mean".
        check_finite: see `ScoreMatrixLoss`.
    """

    dense_negatives = "average"

    def __init__(
        self,
        positive: Sequence[float] = (0.5, -0.7, 0.2),
        negative: Sequence[float] = (0.03, -0.4, 0.9),
        margin: float = 0.2,
        negatives: Literal["hardest", "average"] = "hardest",
        clamp: Literal["each", "sum"] = "each",
        positive_ceiling: float | None = 1 - 1e-5,
        reduction: Reduction = "mean",
        check_finite: bool | None = None,
    ) -> None:
        super().__init__(margin, reduction, check_finite, negatives)
        self.clamp = check_choice("clamp", clamp, ("each", "sum"))
        self.positive = check_coefficients("positive", positive)
        self.negative = check_coefficients("negative", negative)
        if positive_ceiling is not None and positive_ceiling != inf and not is_real(positive_ceiling):
            raise ValueError(f"positive_ceiling: found {positive_ceiling!r}, expected a number or None")
        self.positive_ceiling = inf if positive_ceiling is None else float(positive_ceiling)

    def direction(self, scores: Tensor, negative_mask: Tensor) -> Tensor:
        p = scores.diagonal()
        if self.negatives == "hardest":
            return self.of_hardest(p, hardest_negatives(scores, negative_mask))
        per_pair, informative = self.pairs(scores, p[:, None], negative_mask)
        total = per_pair.masked_fill(~informative, 0).sum(dim=1)
        return (total / informative.sum(dim=1).clamp(min=1)).sum()

    def pairs(self, scores: Tensor, p: Tensor, negative_mask: Tensor) -> tuple[Tensor, Tensor]:
        informative = self._informative(scores, p, negative_mask)
        P, Q = polynomial(p, self.positive), polynomial(scores.masked_fill(~informative, 0), self.negative)
        return self._clamped(P, Q), informative

    def of_hardest(self, p: Tensor, n: Tensor) -> Tensor:
        """Sum over anchors, from the scores of their positives p and hardest negatives n, both (N,)."""
        skipped = (n + self.margin <= p) | (p >= self.positive_ceiling)  # NaN is not, and reaches the loss
        P, Q = polynomial(p, self.positive), polynomial(n.masked_fill(skipped, 0), self.negative)
        return self._clamped(P, Q).masked_fill(skipped, 0).sum()

    def direction_weights(self, scores: Tensor, negative_mask: Tensor) -> PairWeights:
        """A used anchor's positive has the weight -P'(p), each of its negatives Q'(S_ij) times its share: 1 for the
        hardest (split among ties), 1 / |N_i| for the average. Both are zero where the clamp bites.
        """
        p = scores.diagonal()[:, None]
        share = shares(scores, self._informative(scores, p, negative_mask), self.negatives)
        P, Q = polynomial(p, self.positive), polynomial(scores, self.negative)
        pulled, pushed = (P >= 0, Q >= 0) if self.clamp == "each" else (P + Q >= 0, P + Q >= 0)
        positive = -polynomial(p, derivative(self.positive)) * share * pulled
        negative = polynomial(scores, derivative(self.negative)) * share * pushed
        return PairWeights(positive.sum(dim=1), negative)

    def _informative(self, scores: Tensor, p: Tensor, negative_mask: Tensor) -> Tensor:
        return negative_mask & ~(scores + self.margin <= p) & ~(p >= self.positive_ceiling)

    def _clamped(self, P: Tensor, Q: Tensor) -> Tensor:
        return P.clamp(min=0) + Q.clamp(min=0) if self.clamp == "each" else (P + Q).clamp(min=0)

    def describe(self, p: Tensor, n: Tensor) -> dict[str, Tensor]:
        above = p >= self.positive_ceiling
        return {**super().describe(p, n), "above_ceiling_share": above.to(p.dtype).mean()}


class PolynomialAverageLoss(PolynomialLoss, negatives="average"):
    r"""`PolynomialLoss` over the mean of an anchor's informative negatives instead of its hardest one.

    Wei et al., CVPR 2020, name this form as far as is known; its details here are unverified, and the released code has
    the hardest form alone. By default an anchor with p = S_ii and informative negatives N_i contributes

        [P(p)]_+ + mean_{j in N_i} [Q(S_ij)]_+

    Parameters are those of `PolynomialLoss`, with another default for
        negatives: "average" or "hardest"; the release uses "hardest".
    """


class PolynomialPublicVariantLoss(PolynomialLoss, negative=(0.03, -0.3, 1.2), clamp="sum"):
    r"""`PolynomialLoss` with the coefficients and the clamp of a public TensorFlow re-implementation.

    Unverified as the paper's: the released code differs in Q and in where it clamps. By default an informative anchor
    with p = S_ii and hardest negative n contributes

        [P(p) + Q(n)]_+   with P(p) = 0.2 p^2 - 0.7 p + 0.5,  Q(n) = 1.2 n^2 - 0.3 n + 0.03

    Parameters are those of `PolynomialLoss`, with another default for
        negative: coefficients of Q in ascending powers; the re-implementation uses (0.03, -0.3, 1.2).
        clamp: [.]_+ on the "sum" of the polynomials or on "each"; the re-implementation uses "sum".
    """
