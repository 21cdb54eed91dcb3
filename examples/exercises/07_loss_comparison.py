"""The exercises of notebook 7, computed: `python examples/exercises/07_loss_comparison.py`, or cell by cell."""

import json

import torch
from bs4 import BeautifulSoup

from uwml_lib.losses import LOSSES
from uwml_lib.support.paths import CHECKOUT
from uwml_lib.weighting import negative_mass, pair_weights

# %% 1. In 5.1, which losses depend most on their setting? (The table as published, for it takes an hour to train.)
published = CHECKOUT / "reports" / "reference" / "notebooks" / "07_loss_comparison.ipynb"
cells = json.loads(published.read_text(encoding="utf-8"))["cells"]
outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", ())]
pages = ["".join(output.get("text/html", "")) for output in outputs]
rows = BeautifulSoup(next(page for page in pages if "dev rsum" in page), "html.parser").select("tbody tr")
rsums: dict[str, list[float]] = {}
for loss, _, rsum, _ in ([cell.text for cell in row.select("td")] for row in rows):
    rsums.setdefault(loss, []).append(float(rsum))
spreads = {loss: max(values) - min(values) for loss, values in rsums.items()}
for loss in sorted(spreads, key=spreads.__getitem__, reverse=True)[:3]:
    print(f"1. {loss}: {spreads[loss]:.0f} between its best and its worst setting")
defaults, best = ([choose(values) for values in rsums.values()] for choose in (lambda values: values[0], max))
of_defaults, of_best = (max(values) - min(values) for values in (defaults, best))
print(f"1. between losses: {of_defaults:.0f} with defaults, {of_best:.0f} with the best settings")

# %% 2. Halve the temperature of infonce: how much of its weight lies on the hardest negatives?
generator = torch.Generator().manual_seed(0)
noise = torch.randn(5, 64, 64, generator=generator, dtype=torch.float64)
batches = 0.3 + 0.1 * noise + 0.3 * torch.eye(64)  # scores as a model gives them
for temperature in (0.07, 0.035, 0.0175, 0.001):
    mass = negative_mass(LOSSES["infonce"](temperature=temperature), batches)
    hardest = mass.loc[mass["rank"] == 1, "share"].sum() / mass["share"].sum()
    print(f"2. temperature {temperature}: {hardest:.0%} of the weight on the hardest negatives of a row or column")

# %% 3. Why do the lines in 5.3 differ in the very first epoch, although many losses share their warm-up form?
weights = {}
for name in ("triplet", "triplet_semihard", "triplet_all", "polynomial", "triplet_soft"):
    weight = pair_weights(LOSSES[name]().dense(), batches[0]).negative
    weights[name] = weight / weight.abs().sum()
for name, weight in weights.items():
    off = float((weight - weights["triplet"]).abs().sum() / 2)
    print(f"3. dense form of {name}: {off:.0%} of its negatives' weight lies elsewhere than the triplet loss's")
