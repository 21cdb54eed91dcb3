"""The exercises of notebook 0, computed: `python examples/exercises/00_start_here.py`, or cell by cell."""

import random
from collections import Counter

import numpy as np

from uwml_lib.datasets import SCENES, tokenize
from uwml_lib.released.published import ROWS

# %% 1. How many standard deviations is the claim, if single trainings scatter as the re-trainings do?
names = ("f30k_polynomial_i2t_avg", "f30k_triplet_i2t_avg", "f30k_triplet_i2t_avg_retrained")
method, baseline, retrained = (ROWS[name] for name in names)
claimed, single, mean = (row.metrics["rsum"] or 0.0 for row in (method, baseline, retrained))
spread, n = retrained.std["rsum"], retrained.n
for what, difference, std in (
    ("another training", claimed - single, 2**0.5 * spread),
    (f"the mean of {n}", claimed - mean, (1 + 1 / n) ** 0.5 * spread),
):
    print(f"1. against {what}: {difference:+.1f}, {difference / std:.1f} standard deviations of {std:.1f}")

# %% 2. Which captions are informative, if captions look for images?
MARGIN = 0.2
FILLERS = "a an is the of and with in on to there are we can see this picture image , ."
drawer = type(SCENES["scenes"])(train=6)
shown, rng = drawer.draw("train"), random.Random(25)
told = [[drawer.caption(things, rng) for _ in range(5)] for things in shown.contents]


def words_of(captions: list[str]) -> Counter[str]:
    """Count the words of some captions that say something."""
    return Counter(word for text in captions for word in tokenize(text) if word not in FILLERS.split())


def cosine(a: Counter[str], b: Counter[str]) -> float:
    """Return the cosine of two counts of words."""
    lengths = [sum(count**2 for count in words.values()) ** 0.5 for words in (a, b)]
    return sum(a[word] * b[word] for word in a) / max(lengths[0] * lengths[1], 1e-8)


scores = np.array([[cosine(words_of(others), words_of([text])) for text, *_ in told] for _, *others in told])
for what, matrix in (("images", scores), ("captions", scores.T)):
    hardest = np.where(np.eye(len(matrix)), -np.inf, matrix).max(axis=1)
    print(f"2. informative {what}: {np.flatnonzero(hardest + MARGIN > matrix.diagonal()).tolist()}")
