"""Losses on a score matrix: `loss(scores, image_ids=None)`, one a file; nothing here knows what an image is.

A new loss is a file and a line below: the file's name is the loss's name in `LOSSES`.
"""
# ruff: noqa: F401

from uwml_lib.losses.base import PairWeights, ScoreMatrixLoss
from uwml_lib.losses.circle import CircleLoss
from uwml_lib.losses.infonce import InfoNCELoss
from uwml_lib.losses.multi_similarity import MultiSimilarityLoss
from uwml_lib.losses.polynomial import PolynomialLoss
from uwml_lib.losses.polynomial_average import PolynomialAverageLoss
from uwml_lib.losses.polynomial_public_variant import PolynomialPublicVariantLoss
from uwml_lib.losses.polynomial_relative import PolynomialRelativeLoss
from uwml_lib.losses.sigmoid import SigmoidLoss
from uwml_lib.losses.triplet import TripletLoss
from uwml_lib.losses.triplet_all import TripletAllLoss
from uwml_lib.losses.triplet_semihard import TripletSemihardLoss
from uwml_lib.losses.triplet_soft import TripletSoftLoss

LOSSES: dict[str, type[ScoreMatrixLoss]] = {
    kind.__module__.rpartition(".")[2]: kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, ScoreMatrixLoss) and kind is not ScoreMatrixLoss
}
