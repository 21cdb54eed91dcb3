"""The symmetric InfoNCE loss."""

from torch import Tensor

from uwml_lib.losses.base import PairWeights, Reduction, ScoreMatrixLoss, check_number, log_sum_exp, softplus, widened


class InfoNCELoss(ScoreMatrixLoss):
    r"""Cross entropy of picking the positive among an anchor's candidates, the mean of both retrieval directions.

    van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018; in the symmetric form of
    Radford et al., CLIP, 2021. Over the anchor's own pair and its negatives an anchor contributes

        -1/2 log(exp(S_ii / temperature) / sum_j exp(S_ij / temperature))

    The half makes the sum over both directions, divided by N, CLIP's loss. Siblings are no candidates: they are not in
    the denominator. An anchor without negatives contributes log 1 = 0.

    Parameters
        temperature: divides the scores; CLIP learns it and starts from what it uses here, 0.07. It is fixed here; use 1
            for logits that are scaled already.
        reduction: "mean" or "sum", of the halved directions; CLIP uses "mean".
        check_finite: see `ScoreMatrixLoss`.
    """

    needs_margin = False
    gathers = "log_sum_exp"
    against_positive = False

    def __init__(
        self, temperature: float = 0.07, reduction: Reduction = "mean", check_finite: bool | None = None
    ) -> None:
        super().__init__(None, reduction, check_finite)
        self.temperature = check_number("temperature", temperature, above=0)

    def pairs(self, scores: Tensor, p: Tensor, negative_mask: Tensor) -> tuple[Tensor, Tensor]:
        return widened(scores) / self.temperature, negative_mask

    def anchors(self, p: Tensor, gathered: Tensor) -> Tensor:
        return softplus(gathered - widened(p) / self.temperature).sum() / 2

    def direction_weights(self, scores: Tensor, negative_mask: Tensor) -> PairWeights:
        """A negative has half its softmax probability over the temperature as weight, its positive the sum of them."""
        logits = widened(scores) / self.temperature
        p, others = logits.diagonal(), log_sum_exp(logits, negative_mask)
        chance = (logits - p.logaddexp(others)[:, None]).exp().masked_fill(~negative_mask, 0)
        negative = chance / (2 * self.temperature)
        return PairWeights(negative.sum(dim=1), negative)
