"""The exercises of notebook 7, computed: `python examples/exercises/07_loss_comparison.py`, or cell by cell."""

from itertools import combinations

import numpy as np
import torch
from scipy import stats

from uwml_lib.losses import LOSSES
from uwml_lib.weighting import negative_mass, pair_weights

# %% 1. Thirteen equally good losses, five seeds each: how many of the 78 pairs differ at the 5 % level?
generator = np.random.default_rng(0)
n_studies, n_losses, n_seeds = 1000, 13, 5
uncorrected, corrected = [], []
for _ in range(n_studies):
    rsums = 450 + 5 * generator.normal(size=(n_losses, n_seeds))
    apart = np.array([a - b for a, b in combinations(rsums, 2)])
    p = np.sort(stats.ttest_1samp(apart, 0, axis=1).pvalue)
    uncorrected.append((p < 0.05).sum())
    corrected.append(p[0] < 0.05 / len(p))  # by Holm's method there is a star if, and only if, the surest pair has one
print(f"1. of {len(p)} pairs, differ without correction: {np.mean(uncorrected):.1f}")
print(f"1. of 100 studies, with a star after Holm's correction: {100 * np.mean(corrected):.1f}")

# %% 2. Halve the temperature of infonce: how much of its weight lies on the hardest negatives?
noise = torch.randn(5, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
batches = 0.3 + 0.1 * noise + 0.3 * torch.eye(64)  # scores as a model gives them
for temperature in (0.07, 0.035, 0.0175, 0.001):
    mass = negative_mass(LOSSES["infonce"](temperature=temperature), batches)
    hardest = mass.loc[mass["rank"] == 1, "share"].sum() / mass["share"].sum()
    print(f"2. temperature {temperature}: {hardest:.0%} of the weight on the hardest negatives of a row or column")

# %% 3. Add 0.25 to all scores of a batch. Which losses give every pair the same weight as before?
same = []
for name, loss in LOSSES.items():
    before, after = (pair_weights(loss(), batches[0] + level) for level in (0.0, 0.25))
    if torch.allclose(before.negative, after.negative) and torch.allclose(before.positive, after.positive):
        same.append(name)
print(f"3. {', '.join(sorted(same))}")
