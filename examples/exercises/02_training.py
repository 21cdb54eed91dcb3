"""The exercises of notebook 2, computed: `python examples/exercises/02_training.py`, or cell by cell."""

import torch

from uwml_lib.losses import PolynomialLoss, TripletLoss
from uwml_lib.weighting import pair_weights

# %% 1. Raise the score of pair 2 to 0.95: which weights change, and why not others?
scores = torch.tensor([[0.8, 0.5, 0.1, 0.0], [0.2, 0.6, 0.7, 0.1], [0.0, 0.1, 0.3, 0.2], [0.1, 0.0, 0.2, 0.9]])
raised = scores.clone()
raised[2, 2] = 0.95
for name, loss in {"triplet": TripletLoss(reduction="sum"), "polynomial": PolynomialLoss(reduction="sum")}.items():
    before, after = pair_weights(loss, scores), pair_weights(loss, raised)
    for i in (before.positive != after.positive).nonzero().flatten().tolist():
        print(f"1. {name}: pull on pair {i} {before.positive[i]:.2f} -> {after.positive[i]:.2f}")
    for i, j in (before.negative != after.negative).nonzero().tolist():
        print(f"1. {name}: push on row {i}, column {j} {before.negative[i, j]:.2f} -> {after.negative[i, j]:.2f}")

# %% 2. Why a line at 2 m N and not at m N?
N, margin = 8, 0.2
equal = torch.full((N, N), 0.3)
loss = TripletLoss(margin, reduction="sum")
one_way = loss.direction(equal, loss.negative_mask(equal))
print(f"2. m N is {margin * N:.1f}; equal scores cost {one_way:.1f} one way, {loss(equal):.1f} both ways")

# %% 3. The polynomial loss says 0.524, all scores are 0.420 to within 0.001: slow start or collapsed?
generator = torch.Generator().manual_seed(0)
scores = 0.42 + 0.001 * torch.randn(64, 64, generator=generator)
polynomial, triplet = PolynomialLoss(), TripletLoss(reduction="sum")
spread = scores.std().item()
print(f"3. spread {spread:.4f}, a twentieth of the margin is {0.2 / 20}: {'collapsed' if spread < 0.01 else 'no'}")
for level in (0.42, 0.50):
    equal = torch.full((64, 64), level)
    print(f"3. all scores {level:.2f}: polynomial {polynomial(equal):.3f}, triplet {triplet(equal):.1f}")
