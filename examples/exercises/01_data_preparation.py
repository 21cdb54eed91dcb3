"""The exercises of notebook 1, computed: `python examples/exercises/01_data_preparation.py`, or cell by cell."""

from itertools import product

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

# %% 1. How many captions has a picture with one object, if each of its attributes can be left out?
parts = product(("", "large "), ("", "red "), ("digit", "seven"))  # left out or said: size, colour, digit
captions = sorted("a " + "".join(words) for words in parts)
print(f"1. {len(captions)} captions: {', '.join(captions)}")

# %% 2. Why must the region classifier not be trained on boxes of the test pictures?
images, digits = load_digits(return_X_y=True)
train, test = slice(0, 300), slice(1497, 1797)
on_train, on_test = (LogisticRegression(max_iter=1000).fit(images[part], digits[part]) for part in (train, test))
print(
    f"2. digits of the test split it tells right: {on_train.score(images[test], digits[test]):.1%} trained on others, "
    f"{on_test.score(images[test], digits[test]):.1%} trained on them, "
    f"which no new picture gets: {on_test.score(images[train], digits[train]):.1%}"
)

# %% 3. By how much does the best of twelve equally good settings seem better than it is?
generator = np.random.default_rng(0)
for n_images in (500, 2000):
    measured = 100 * generator.binomial(n_images, 0.5, (10_000, 12)) / n_images
    print(
        f"3. {n_images} images: one setting {measured[:, 0].std():.1f} points off, "
        f"the best of twelve {measured.max(axis=1).mean() - 50:.1f} too high"
    )
