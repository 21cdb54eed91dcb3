"""Any loss on a score matrix as a loss of sentence-transformers; the library itself is not needed here."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from uwml_lib.losses.base import ScoreMatrixLoss, check_choice, check_loss


class SentencePairsLoss(nn.Module):
    """A loss on a score matrix for `SentenceTransformerTrainer`: anchors are the rows, all that follows the columns.

    A row of the data set is an anchor, its positive and any number of hard negatives. The negatives of an anchor are
    the other anchors' positives and all hard negatives; those of a positive are the other anchors. The scores are never
    held, so a batch may be of any size that the model takes.

    It stands where `MultipleNegativesRankingLoss` does. With `InfoNCELoss(temperature=1 / scale)` it is that loss with
    `directions=("query_to_doc", "doc_to_query")` and `partition_mode="per_direction"`, over several processes too; by
    default theirs takes the first of these directions alone. There is no scale: the loss gets the similarities, and
    brings its own temperature if it needs one. Coefficients of a polynomial must suit where the model's cosines lie;
    `positive_ceiling=None` keeps it from skipping a positive that rounding takes to 1.

    Parameters
        model: the `SentenceTransformer`.
        loss: any loss of this kit.
        similarity: "cosine" or "dot".
        gather_across_devices: make the loss that of all processes' rows, which nobody gathers: candidates travel from
            one process to the next. As many rows must be in each.

    Raises ValueError for a loss that is none of this kit's kind and another similarity.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: ScoreMatrixLoss,
        similarity: Literal["cosine", "dot"] = "cosine",
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.loss = model, check_loss(loss)
        self.similarity = check_choice("similarity", similarity, ("cosine", "dot"))
        self.gather_across_devices = gather_across_devices

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Return the loss as a scalar of the embeddings' dtype.

        sentence_features: what the model takes, for each column, N rows. labels: (N,), whole numbers, or None; rows of
        one label, such as an image's captions, are never negatives of each other. This is what a column `label` means
        here: it cannot say by 0 or 1 whether a pair matches. Raises ValueError for fewer than two columns, labels that
        are no whole numbers, and as `ScoreMatrixLoss.from_embeddings` does, which calls anchors images, candidates
        captions and labels image_ids.
        """
        columns = [self.model(features)["sentence_embedding"] for features in sentence_features]
        if len(columns) < 2:
            raise ValueError(f"sentence_features: found {len(columns)}, expected 2 or more: anchors, positives")
        together = self.gather_across_devices and dist.is_available() and dist.is_initialized()
        return self.loss.from_embeddings(
            columns[0],
            torch.cat(columns[1:]),
            labels,
            similarity=self.similarity,
            process_group=dist.group.WORLD if together else None,
        )

    def get_config_dict(self) -> dict[str, Any]:
        """Return what the card of a trained model says of its loss."""
        return {
            "loss": repr(self.loss),
            "similarity": self.similarity,
            "gather_across_devices": self.gather_across_devices,
        }
