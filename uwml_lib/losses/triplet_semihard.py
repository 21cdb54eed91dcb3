"""The bidirectional triplet loss on semi-hard negatives."""

from torch import Tensor

from uwml_lib.losses.base import PairWeights, Reduction, ScoreMatrixLoss, hardest_negatives, shares
from uwml_lib.losses.triplet import TripletAllLoss


class TripletSemihardLoss(ScoreMatrixLoss):
    r"""Triplet loss on the hardest of the negatives that already score below the positive.

    Schroff et al., FaceNet, CVPR 2015, there on squared distances and in one direction. An anchor contributes

        [margin + n - S_ii]_+   with n = max {S_ij : S_ij < S_ii}

    and nothing if every negative reaches its positive, as in pytorch-metric-learning's miners; TensorFlow Addons takes
    the easiest negative then, and what FaceNet does is unverified. A negative tied with its positive is not semi-hard:
    a batch of equal scores has no loss at all, so train the first epochs on `dense()`, the loss over all negatives.

    Parameters
        margin: wanted gap; FaceNet uses 0.2 between squared distances of unit vectors, which is 0.1 between cosines.
        reduction: "sum", or "mean", which divides by N; FaceNet uses "sum".
        check_finite: see `ScoreMatrixLoss`.
    """

    def __init__(self, margin: float = 0.2, reduction: Reduction = "sum", check_finite: bool | None = None) -> None:
        super().__init__(margin, reduction, check_finite)

    gathers = "hardest"

    def direction(self, scores: Tensor, negative_mask: Tensor) -> Tensor:
        n = hardest_negatives(*self.pairs(scores, scores.diagonal()[:, None], negative_mask))
        p = scores.diagonal()  # only now: inductor (torch 2.13) else loses its gradient
        return (self.margin + n - p).clamp(min=0).sum()

    def pairs(self, scores: Tensor, p: Tensor, negative_mask: Tensor) -> tuple[Tensor, Tensor]:
        return scores, negative_mask & ~(scores >= p)

    def direction_weights(self, scores: Tensor, negative_mask: Tensor) -> PairWeights:
        """The hardest semi-hard negative, if within the margin, and its positive weigh 1; tied ones share it."""
        p = scores.diagonal()[:, None]
        semihard = negative_mask & ~(scores >= p) & (self.margin + scores - p >= 0)
        negative = shares(scores, semihard, "hardest")
        return PairWeights(negative.sum(dim=1), negative)

    def dense(self) -> TripletAllLoss:
        return TripletAllLoss(self.margin, "all", self.reduction, self.check_finite)
