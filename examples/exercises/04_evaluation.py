"""The exercises of notebook 4, computed: `python examples/exercises/04_evaluation.py`, or cell by cell."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from uwml_lib.config import preset
from uwml_lib.datasets import load_split
from uwml_lib.evaluation import retrieval_metrics, score_matrix
from uwml_lib.runs import load_model
from uwml_lib.training import train

# %% 1. A model that gives every pair the same score: what are its recalls, and what if ties counted for it?
n_images, K = 100, 5
metrics = retrieval_metrics(torch.full((n_images, n_images * K), 0.3), captions_per_image=K)
ranks_if_ties_counted_for_it = torch.zeros(n_images)  # no wrong item scores *higher* than the right one
print(f"1. all scores equal: rsum {metrics['rsum']:.0f}")
print(f"1. if ties counted for it: recall at 1 of {100 * (ranks_if_ties_counted_for_it < 1).float().mean():.0f}")

# %% 2. Why are an image's captions drawn together in the bootstrap?
generator = np.random.default_rng(0)
ease = generator.beta(0.5, 0.5, size=(200, 1))  # a picture is easy or hard for all of its captions
found = 100.0 * (generator.random((200, K)) < ease)
together = [found[generator.integers(200, size=200)].mean() for _ in range(2000)]
apart = [found.ravel()[generator.integers(found.size, size=found.size)].mean() for _ in range(2000)]
again = [100 * (generator.random((200, K)) < generator.beta(0.5, 0.5, size=(200, 1))).mean() for _ in range(2000)]
for how, means in (("drawn together", together), ("drawn apart", apart), ("of new pictures, the truth", again)):
    low, high = np.quantile(means, [0.025, 0.975])
    print(f"2. 95 % interval of recall at 1, {how}: {high - low:.1f} points wide")

# %% 3. Set LOSS to the other loss. Are its worst retrievals other ones?
worst = {}
for loss in ("polynomial", "triplet"):
    with tempfile.TemporaryDirectory() as place:
        run = train(preset("scenes_smoke", loss=loss, epochs=8, decay_epoch=6), Path(place) / loss)
        model, config, vocabulary = load_model(run)
    test = load_split(config, "test", vocabulary)
    ranks = retrieval_metrics(score_matrix(model, test), test.captions_per_image, return_ranks=True)
    worst[loss] = ranks["text_to_image_ranks"].argsort()[-20:].tolist()
both = set(worst["polynomial"]) & set(worst["triplet"])
chance = 20 * 20 / len(test)
print(f"3. of the 20 captions of {len(test)} that fare worst, {len(both)} are the same (by chance {chance:.0f})")
for loss, numbers in worst.items():
    print(f"3. the worst of all, {loss}: {test.captions[numbers[-1]]}")
