"""The exercises of notebook 9, computed: `python examples/exercises/09_fidelity.py`, or cell by cell."""

from string import ascii_lowercase

from uwml_lib.datasets import available_tokenizer, tokenize_released

# %% 1. Which words can follow b' without sticking to it, and why are t and s not among them?
if available_tokenizer() == "punkt":
    words = [*ascii_lowercase, "two", "dogs"]
    free = [word for word in words if word in tokenize_released(f"{word} dog runs .")]
    print(f"1. words that stand alone after b': {' '.join(free)}")
    print(f"1. words of one letter that stick to it: {' '.join(set(ascii_lowercase).difference(free))}")
else:
    print("1. nltk's Punkt is not here, which the released tokens need; `make setup` downloads it")

# %% 2. A batch of 128 from Flickr8k, 30,000 captions: how many anchors meet a sibling?
batch_size, n_captions, per_image = 128, 30_000, 5
print(f"2. {batch_size * (batch_size - 1) * (per_image - 1) / (n_captions - 1):.1f} anchors of {batch_size}")

# %% 3. What does the release's summary call rsum?
image_to_text, text_to_image = (70, 90, 95), (50, 75, 85)
print(f"3. {6 * sum(image_to_text) / 3:.0f} instead of {sum(image_to_text) + sum(text_to_image)}")
