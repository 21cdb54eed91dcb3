"""The exercises of notebook 5, computed: `python examples/exercises/05_weight_functions.py`, or cell by cell."""

import torch
from numpy.polynomial import Polynomial
from torch.nn.functional import softplus

from uwml_lib.losses import PolynomialLoss
from uwml_lib.weighting import describe, one_anchor, pair_weights, weight_curve

# %% 1. NEGATIVE = (0.0, 0.0, 0.9): what becomes of the dead zone, and of the weight at n = 0?
loss = PolynomialLoss(negative=(0.0, 0.0, 0.9), reduction="sum")
for zone in describe(loss).zones:
    if zone.pair == "negative":
        print(f"1. negatives from {zone.low:+.2f} to {zone.high:+.2f}: {zone.effect}")
for n in (-0.5, 0.0, 0.5):
    weight = pair_weights(loss, one_anchor(positive=-0.6, negative=n)).negative[0, 1]
    print(f"1. weight at n = {n:+.1f}: {weight:+.2f}")

# %% 2. Where would a positive be pushed away, and why does that not happen?
P = Polynomial((0.5, -0.7, 0.2))
print(f"2. P' is 0 at {P.deriv().roots().round(2)}, P at {P.roots().round(2)}, with P({1.75}) = {P(1.75):.3f} between")
for p in (0.9, 1.5, 2.0, 3.0):
    weight = pair_weights(PolynomialLoss(positive_ceiling=None, reduction="sum"), one_anchor(p, 3.5)).positive[0]
    print(f"2. without a ceiling, the pull on a positive at {p}: {weight:+.2f}")

# %% 3. Which weight curve would log(1 + exp(n - p)) give?
similarities = torch.linspace(-1, 1, 9, dtype=torch.float64)
curve = weight_curve(lambda scores: softplus(scores[0, 1] - scores[0, 0]), one_anchor(0.6, 0.3), (0, 1), similarities)
logistic = torch.sigmoid(similarities - 0.6).numpy()
largest = abs(curve["weight"] - logistic).max()
print(f"3. largest difference of the curve and the logistic function of n - p: {largest:.0e}")
