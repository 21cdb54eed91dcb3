"""The bidirectional triplet loss over all negatives."""

from typing import Literal

from uwml_lib.losses.base import Reduction
from uwml_lib.losses.triplet import TripletLoss


class TripletAllLoss(TripletLoss):
    r"""`TripletLoss` over all negatives of an anchor instead of its hardest one.

    Kiros et al. 2014; `ContrastiveLoss` of SCAN without `--max_violation`. By default an anchor contributes

        sum_j [margin + S_ij - S_ii]_+

    Parameters
        margin: wanted gap; SCAN uses 0.2.
        negatives: "all" or "hardest"; Kiros et al. use "all".
        reduction: "sum", or "mean", which divides by N; SCAN uses "sum".
        check_finite: see `ScoreMatrixLoss`.
    """

    def __init__(
        self,
        margin: float = 0.2,
        negatives: Literal["hardest", "all"] = "all",
        reduction: Reduction = "sum",
        check_finite: bool | None = None,
    ) -> None:
        super().__init__(margin, negatives, reduction, check_finite)
