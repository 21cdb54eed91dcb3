"""The exercises of notebook 5, computed: `python examples/exercises/05_weight_functions.py`, or cell by cell."""

import torch
from numpy.polynomial import Polynomial
from torch.nn.functional import softplus

from uwml_lib.losses import LOSSES, InfoNCELoss, PolynomialLoss, SigmoidLoss
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

# %% 4. Which panel of 4.1 belongs to that function, and which setting makes it steeper?
for scale in (1.0, 20.0):
    loss = LOSSES["triplet_soft"](scale=scale, reduction="sum")
    pushes = {n: float(pair_weights(loss, one_anchor(0.6, n)).negative[0, 1]) for n in (0.4, 0.6, 0.8)}
    shown = ", ".join(f"{push:.2f} at {n}" for n, push in pushes.items())
    print(f"4. triplet_soft, scale {scale:.0f}, positive at 0.6: pushes of {shown}")

# %% 5. Why is the map of sigmoid striped, and what does a batch of a single pair do?
sigmoid, infonce = SigmoidLoss(reduction="sum"), InfoNCELoss(reduction="sum")
for name, loss in {"sigmoid": sigmoid, "infonce": infonce}.items():
    pushes = [float(pair_weights(loss, one_anchor(p, 0.9)).negative[0, 1]) for p in (0.8, 0.9, 1.0)]
    print(f"5. {name}: push on a negative at 0.9, its positive at 0.8, 0.9, 1.0: {[round(w, 2) for w in pushes]}")
    single = torch.tensor([[0.9]])
    print(
        f"5. {name} of a single pair: loss {float(loss(single)):.3f}, pull {pair_weights(loss, single).positive[0]:.3f}"
    )
