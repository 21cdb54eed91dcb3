"""The exercises of notebook 6, computed: `python examples/exercises/06_twelve_losses.py`, or cell by cell."""

import math

import torch

from uwml_lib.losses import LOSSES, InfoNCELoss, SigmoidLoss
from uwml_lib.weighting import one_anchor, pair_weights

# %% 1. A negative lies 0.2 below its positive: at which scale of triplet_soft does it weigh 0.02, and 1 at the default?
scale = math.log(1 / 0.02 - 1) / 0.2
print(f"1. scale {scale:.1f}")
for s in (1.0, scale):
    weight = pair_weights(LOSSES["triplet_soft"](scale=s, reduction="sum"), one_anchor(0.6, 0.4)).negative[0, 1]
    print(f"1. at scale {s:.1f} it weighs {weight:.2f}")

# %% 2. What does a batch of a single pair do under sigmoid, and under infonce?
single = torch.tensor([[0.9]])
for name, loss in {"sigmoid": SigmoidLoss(reduction="sum"), "infonce": InfoNCELoss(reduction="sum")}.items():
    pull = pair_weights(loss, single).positive[0]
    print(f"2. {name} of a single pair: loss {float(loss(single)):.3f}, pull {pull:.3f}")

# %% 3. All scores are shifted: which losses notice, and what is done to a hardest negative at 0.1?
generator = torch.Generator().manual_seed(0)
scores = 0.35 + 0.15 * torch.randn(32, 32, generator=generator, dtype=torch.float64) + 0.25 * torch.eye(32)
scores = scores.clamp(max=0.95)
shifted = scores - scores.diagonal().mean() - 0.5
for name, kind in LOSSES.items():
    before, after = (pair_weights(kind(reduction="sum"), S) for S in (scores, shifted))
    same = all(torch.allclose(w, v) for w, v in zip(before, after, strict=True))
    print(f"3. {name} {'does not notice' if same else 'notices'}")
for name in ("polynomial", "polynomial_public_variant"):
    weight = pair_weights(LOSSES[name](reduction="sum"), one_anchor(0.2, 0.1)).negative[0, 1]
    print(f"3. {name}: a hardest negative at 0.1 weighs {weight:+.2f}")
