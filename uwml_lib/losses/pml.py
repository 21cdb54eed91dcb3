"""Any loss on a score matrix as a loss of pytorch-metric-learning: embeddings and labels in; needs the extra [pml]."""

from typing import Any

import torch
from torch import Tensor

from uwml_lib.losses import PolynomialLoss, ScoreMatrixLoss
from uwml_lib.losses.base import check_loss, widened

try:
    from pytorch_metric_learning import losses as library
    from pytorch_metric_learning.distances import BaseDistance, CosineSimilarity
    from pytorch_metric_learning.utils.loss_and_miner_utils import convert_to_pairs
except ModuleNotFoundError as error:
    message = f"uwml_lib.losses.pml needs pytorch-metric-learning, which the kit's extra [pml] installs ({error})"
    raise ModuleNotFoundError(message, name=error.name) from None


class LabelledPairsLoss(library.BaseMetricLossFunction):
    r"""A loss on a score matrix for embeddings with labels, as in retrieval within one modality.

    Every two embeddings i != j of one label are a positive pair, in both orders. With L(p, N) what `loss` makes of an
    anchor with the positive score p and the set N of negative scores, and R the pairs, this is

        1/|R| sum_{(i, j) in R} L(S_ij, {S_ik : k of another label than i})

    An embedding is never its own positive, and further embeddings of the anchor's label are no negatives. This is the
    project's reading; that the papers train on labels so is unverified. Of `NTXentLoss`, the same reading of InfoNCE,
    `InfoNCELoss` gives half: where a loss gives half to each retrieval direction (`SigmoidLoss` too), a pair keeps it.

    Called as pytorch-metric-learning's losses are: `loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)`.
    embeddings: (N, D), floating point. labels: (N,). ref_emb, ref_labels: (M, D) and (M,), where an anchor's partners
    and negatives are looked for; by default the embeddings themselves, and other things than the anchors if given, even
    as a copy. indices_tuple: what a miner returns; its pairs take the place of all those above, each counted once,
    triplets taken apart into pairs. Returns a scalar of the embeddings' dtype, 0 with a graph if there is no positive
    pair. Raises ValueError for missing labels and, as `ScoreMatrixLoss` does, for scores that are not finite.

    Parameters
        loss: any loss of this kit, or one of your own with its `direction`; default `PolynomialLoss()`. Its reduction
            plays no part: the pairs are always averaged.
        distance: a similarity of pytorch-metric-learning; default `CosineSimilarity()`.
        pml_arguments: what its losses take besides: embedding_regularizer, embedding_reg_weight, collect_stats.

    Raises ValueError for a loss that is none of this kit's kind, a distance that falls as things come closer, and a
    reducer, which would have nothing to reduce.
    """

    def __init__(
        self, loss: ScoreMatrixLoss | None = None, distance: BaseDistance | None = None, **pml_arguments: Any
    ) -> None:
        super().__init__(distance=distance, **pml_arguments)
        loss = PolynomialLoss() if loss is None else loss
        if not self.distance.is_inverted:
            raise ValueError(f"distance: found {self.distance!r}, expected a similarity, such as CosineSimilarity()")
        if pml_arguments.get("reducer") is not None:
            raise ValueError(f"reducer: found {pml_arguments['reducer']!r}, expected none: pairs are averaged here")
        self.loss = check_loss(loss)

    def get_default_distance(self) -> BaseDistance:
        return CosineSimilarity()

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
    ) -> dict[str, dict[str, Any]]:
        scores = widened(self.distance(embeddings, ref_emb))
        self.loss.check_numbers(scores)
        positives, negatives = _masks(scores, labels, indices_tuple, ref_labels)
        if ref_emb is embeddings:
            positives.fill_diagonal_(False)
        anchors, partners = positives.nonzero(as_tuple=True)
        total = scores.new_zeros(())
        # A loss takes its positives from the diagonal, one a row: as many pairs at a time as there are columns. A
        # pair's score is put there, and what stood there moves into a column at the end.
        for i, j in zip(anchors.split(len(ref_emb)), partners.split(len(ref_emb)), strict=True):
            rows = _with_diagonal(scores[i], scores[i, j])
            mask = _with_diagonal(negatives[i], torch.zeros_like(i, dtype=torch.bool))
            total = total + self.loss.direction(rows, mask)
        loss = (total / max(len(anchors), 1)).to(embeddings.dtype)
        return {"loss": {"losses": loss, "indices": None, "reduction_type": "already_reduced"}}


class CrossBatchMemory(library.CrossBatchMemory):
    """pytorch-metric-learning's class, with its arguments, which takes a `LabelledPairsLoss` too.

    Embeddings of the latest batches in memory are an anchor's positives if they have its label, and its negatives
    otherwise. What the anchor itself has just left there is neither.
    """

    @staticmethod
    def supported_losses() -> list[str]:
        return [*library.CrossBatchMemory.supported_losses(), LabelledPairsLoss.__name__]


class SelfSupervisedLoss(library.SelfSupervisedLoss):
    """pytorch-metric-learning's class, with its arguments, which takes a `LabelledPairsLoss` too.

    Row i of `embeddings` and of `ref_emb` are a positive pair. Negatives of an anchor are the other rows of both, with
    `symmetric=False` those of `ref_emb` alone, and only `embeddings` are anchors then.
    """

    @staticmethod
    def supported_losses() -> list[str]:
        return [*library.SelfSupervisedLoss.supported_losses(), LabelledPairsLoss.__name__]


def _masks(
    scores: Tensor, labels: Tensor | None, indices_tuple: tuple[Tensor, ...] | None, ref_labels: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Which of the scores are positives and which negatives, by label or as a miner chose."""
    if indices_tuple is None:
        if labels is None or ref_labels is None:
            name = "labels" if labels is None else "ref_labels"
            raise ValueError(f"{name}: found None, expected one label for each embedding")
        same = labels[:, None] == ref_labels
        return same, ~same
    first, positive, second, negative = convert_to_pairs(indices_tuple, labels, ref_labels)
    positives, negatives = torch.zeros(2, *scores.shape, dtype=torch.bool, device=scores.device)
    positives[first, positive] = negatives[second, negative] = True
    return positives, negatives


def _with_diagonal(rows: Tensor, diagonal: Tensor) -> Tensor:
    """Put (P,) `diagonal` into (P, M) rows and what it displaces at their ends: (P, M + 1)."""
    return torch.cat([rows, rows.diagonal()[:, None]], dim=1).diagonal_scatter(diagonal)
