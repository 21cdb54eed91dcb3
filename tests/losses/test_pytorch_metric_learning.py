"""The losses that pytorch-metric-learning has too, against it: value and gradient in both retrieval directions.

It has no score matrices, so a stand-in for its distances hands ours through. Both sum, for its means are over what is
not zero. It takes a direction with a single informative pair for none, so there are always more.
"""

import pytest
import torch

from uwml_lib.losses import (
    CircleLoss,
    InfoNCELoss,
    MultiSimilarityLoss,
    TripletAllLoss,
    TripletLoss,
    TripletSemihardLoss,
    TripletSoftLoss,
)

pml = pytest.importorskip("pytorch_metric_learning")
distances = pytest.importorskip("pytorch_metric_learning.distances")
losses = pytest.importorskip("pytorch_metric_learning.losses")
miners = pytest.importorskip("pytorch_metric_learning.miners")
reducers = pytest.importorskip("pytorch_metric_learning.reducers")


class Handed(distances.CosineSimilarity):
    """The first argument is the score matrix itself."""

    def forward(self, query_emb, ref_emb=None):
        return query_emb.clone()


HANDED = {"distance": Handed()}
SUMMED = {**HANDED, "reducer": reducers.SumReducer()}
HARD = miners.BatchEasyHardMiner(pos_strategy="easy", neg_strategy="hard", **HANDED)
SEMIHARD = miners.BatchEasyHardMiner(pos_strategy="easy", neg_strategy="semihard", **HANDED)
# Ours; theirs; their miner, if one chooses the pairs; what their sum over both directions is multiplied by.
PAIRS = {
    "triplet": (TripletLoss(), losses.TripletMarginLoss(0.2, **SUMMED), HARD, 1),
    "triplet_all": (TripletAllLoss(0.3), losses.TripletMarginLoss(0.3, **SUMMED), None, 1),
    "triplet_semihard": (TripletSemihardLoss(), losses.TripletMarginLoss(0.2, **SUMMED), SEMIHARD, 1),
    "triplet_soft": (TripletSoftLoss(), losses.TripletMarginLoss(0, smooth_loss=True, **SUMMED), HARD, 1),
    "triplet_soft-all": (
        TripletSoftLoss(negatives="all"), losses.TripletMarginLoss(0, smooth_loss=True, **SUMMED), None, 1,
    ),
    "infonce": (InfoNCELoss(reduction="sum"), losses.NTXentLoss(0.07, **SUMMED), None, 1 / 2),
    "multi_similarity": (
        MultiSimilarityLoss(reduction="sum"), losses.MultiSimilarityLoss(2, 50, 0.5, **SUMMED),
        miners.MultiSimilarityMiner(0.1, **HANDED), 1,
    ),
    "multi_similarity-unmined": (
        MultiSimilarityLoss(margin=None, reduction="sum"), losses.MultiSimilarityLoss(2, 50, 0.5, **SUMMED), None, 1,
    ),
    "circle": (CircleLoss(reduction="sum"), losses.CircleLoss(0.4, 80, **SUMMED), None, 1),
    "circle-faces": (CircleLoss(0.25, 256, reduction="sum"), losses.CircleLoss(0.25, 256, **SUMMED), None, 1),
}  # fmt: skip


def theirs(loss, miner, scores, image_ids):
    """The sum over both directions; without a miner all pairs but siblings count."""
    size = len(scores)
    rows, total = torch.arange(size), 0
    for matrix in (scores, scores.T):
        if miner is not None:
            chosen = miner(matrix.detach(), rows, ref_emb=matrix.detach().clone(), ref_labels=rows.clone())
        else:
            chosen = (rows, rows, *torch.where(image_ids[:, None] != image_ids))
        total = total + loss(matrix, rows, chosen, ref_emb=matrix.detach(), ref_labels=rows.clone())
    return total


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("siblings", [False, True])
@pytest.mark.parametrize("lift", [-0.3, 0.3])  # of the positives: from most pairs informative to few
def test_value_and_gradient(name, siblings, lift):
    ours, loss, miner, factor = PAIRS[name]
    if siblings and miner is not None:
        pytest.skip("its miners take siblings for positives")
    image_ids = torch.tensor([0, 1, 1, 2, 3, 3, 3, 4]) if siblings else torch.arange(8)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        scores = torch.rand(8, 8, generator=generator, dtype=torch.float64) * 1.2 - 0.6
        scores.diagonal().add_(lift).clamp_(-1, 1)
        scores.requires_grad_()
        value, expected = ours(scores, image_ids), factor * theirs(loss, miner, scores, image_ids)
        # Its softplus is cut off from 20 on, where that is off by exp(-20), 2e-9, times gamma in the gradient.
        tolerance = 1e-6 if name.startswith("circle") else 1e-9
        torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)
        (gradient,) = torch.autograd.grad(value, scores)
        (wanted,) = torch.autograd.grad(expected, scores)
        torch.testing.assert_close(gradient, wanted, rtol=tolerance, atol=tolerance)
