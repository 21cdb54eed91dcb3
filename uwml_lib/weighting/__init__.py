"""The weight that a loss gives to each pair, and coefficients of the polynomial loss by the weights they make."""

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
