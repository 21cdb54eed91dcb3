"""The exercises of notebook 2, computed: `python examples/exercises/02_training.py`, or cell by cell."""

import tempfile
from pathlib import Path

import torch

from uwml_lib.config import preset
from uwml_lib.losses import PolynomialLoss, TripletLoss
from uwml_lib.runs import Run
from uwml_lib.training import train
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

# %% 3. The triplet loss is a sum, the polynomial loss a mean. Adam hardly cares; what does?
weight = torch.nn.Parameter(torch.zeros(3))
for factor in (1.0, 64.0):
    weight.data.zero_()
    optimizer = torch.optim.Adam([weight], lr=1e-3)
    weight.grad = factor * torch.tensor([0.5, -2.0, 0.1])
    optimizer.step()
    print(f"3. Adam's first step with the gradient times {factor:.0f}: {[round(x, 6) for x in weight.tolist()]}")
for name in ("triplet", "polynomial"):
    with tempfile.TemporaryDirectory() as place:
        run = Run.load(train(preset("scenes_smoke", loss=name), Path(place) / name))
        norms = run.history().query("kind == 'step' and warmup == False")["gradient_norm"]
    share = (norms > run.config.gradient_clip).mean()
    print(f"3. {name}: median gradient norm {norms.median():.1f}; a clip at 2 cuts {share:.0%} of the readings")
