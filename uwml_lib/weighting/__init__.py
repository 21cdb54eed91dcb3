"""The weight that a loss gives to each pair, and coefficients of the polynomial loss by the weights they make.

>>> import torch
>>> from uwml_lib.losses import PolynomialLoss, TripletLoss
>>> from uwml_lib.weighting import describe, pair_weights
>>> weights = pair_weights(TripletLoss(margin=0.2), torch.tensor([[0.9, 0.6], [0.1, 0.7]]))
>>> weights.negative.tolist()  # one negative is pushed
[[0.0, 1.0], [0.0, 0.0]]
>>> print(describe(PolynomialLoss(), score_range=(0.4, 0.9), negative_range=(0.2, 0.8)))
positive: +0.4000 to +0.9000 moved the right way
negative: +0.2000 to +0.3489 not moved
negative: +0.3489 to +0.8000 moved the right way
Warning: negatives from 0.2000 to 0.3489 are not moved, 25% of the range
"""

from uwml_lib.weighting.coefficients import Coefficients, Description, Zone, describe, from_scores, from_weights
from uwml_lib.weighting.weights import (
    anchor_curves,
    batch_scores,
    contributing,
    negative_mass,
    one_anchor,
    pair_weights,
    positives_and_hardest_negatives,
    weight_curve,
    weight_map,
)

__all__ = [
    "Coefficients", "Description", "Zone", "anchor_curves", "batch_scores", "contributing", "describe", "from_scores",
    "from_weights", "negative_mass", "one_anchor", "pair_weights", "positives_and_hardest_negatives", "weight_curve",
    "weight_map",
]  # fmt: skip
