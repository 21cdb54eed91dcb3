"""Losses on a score matrix: `loss(scores, image_ids=None)`; nothing here knows what an image is.

>>> import torch
>>> from uwml_lib.losses import TripletLoss
>>> scores = torch.tensor([[0.9, 0.6], [0.1, 0.7]], requires_grad=True)
>>> loss = TripletLoss(margin=0.2)(scores)  # one negative is within the margin: 0.2 + 0.6 - 0.7
>>> round(loss.item(), 2)
0.1
>>> loss.backward()
>>> scores.grad.tolist()  # minus: the score is pulled up; plus: it is pushed down
[[0.0, 1.0], [0.0, -1.0]]

A new loss is a file and a line in `LOSSES`; a variant that only changes a default stands below the loss it varies.
`FromWeights` is none of the table, as it is nothing without the two functions that it takes.
"""

from uwml_lib.losses.base import PairWeights, ScoreMatrixLoss
from uwml_lib.losses.circle import CircleLoss
from uwml_lib.losses.from_weights import FromWeights
from uwml_lib.losses.infonce import InfoNCELoss
from uwml_lib.losses.multi_similarity import MultiSimilarityLoss
from uwml_lib.losses.polynomial import PolynomialAverageLoss, PolynomialLoss, PolynomialPublicVariantLoss
from uwml_lib.losses.polynomial_relative import PolynomialRelativeLoss
from uwml_lib.losses.sigmoid import SigmoidLoss
from uwml_lib.losses.triplet import TripletAllLoss, TripletLoss
from uwml_lib.losses.triplet_semihard import TripletSemihardLoss
from uwml_lib.losses.triplet_soft import TripletSoftLoss

LOSSES: dict[str, type[ScoreMatrixLoss]] = {
    "circle": CircleLoss,
    "infonce": InfoNCELoss,
    "multi_similarity": MultiSimilarityLoss,
    "polynomial": PolynomialLoss,
    "polynomial_average": PolynomialAverageLoss,
    "polynomial_public_variant": PolynomialPublicVariantLoss,
    "polynomial_relative": PolynomialRelativeLoss,
    "sigmoid": SigmoidLoss,
    "triplet": TripletLoss,
    "triplet_all": TripletAllLoss,
    "triplet_semihard": TripletSemihardLoss,
    "triplet_soft": TripletSoftLoss,
}

__all__ = ["LOSSES", "FromWeights", "PairWeights", "ScoreMatrixLoss"] + [kind.__name__ for kind in LOSSES.values()]
