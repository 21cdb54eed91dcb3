"""Losses on a score matrix: `loss(scores, image_ids=None)`, one a file; nothing here knows what an image is."""

from uwml_lib.losses.base import PairWeights, ScoreMatrixLoss
from uwml_lib.losses.polynomial import PolynomialLoss
from uwml_lib.losses.triplet import TripletLoss

LOSSES: dict[str, type[ScoreMatrixLoss]] = {"polynomial": PolynomialLoss, "triplet": TripletLoss}

__all__ = ["LOSSES", "PairWeights", "PolynomialLoss", "ScoreMatrixLoss", "TripletLoss"]
