"""Coloured digits, drawn and named; the handwriting is scikit-learn's 1,797 digits, so nothing is downloaded."""

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SPLITS = ("train", "dev", "test")
POOL_ENDS = (1100, 1400)  # of the shuffled digits: train before the first, test after the second
NOISE = 14
"""Standard deviation, in 0..255, of a pixel's noise and of a digit's colour around the one it is named for."""

# Name -> RGB and the words captions use; the first word is the usual one.
COLOURS: dict[str, tuple[tuple[int, int, int], tuple[str, ...]]] = {
    "red": ((225, 40, 40), ("red", "scarlet")), "orange": ((250, 140, 20), ("orange",)),
    "yellow": ((245, 230, 60), ("yellow", "golden")), "green": ((50, 175, 60), ("green",)),
    "turquoise": ((60, 215, 215), ("turquoise", "cyan")), "blue": ((60, 95, 240), ("blue",)),
    "purple": ((150, 60, 200), ("purple", "violet")), "pink": ((250, 150, 195), ("pink",)),
    "white": ((240, 240, 240), ("white",)),
}  # fmt: skip
COLOUR_NAMES = tuple(COLOURS)
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NOUNS = ("digit", "digit", "number", "number", "numeral")
SAY_DIGIT, SAY_COLOUR, SAY_SIZE = 0.93, 0.9, 0.3
"""How often a caption names a digit's value, its colour and its size: the lower, the more items a caption fits."""


def handwritten_digits(seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return scikit-learn's digits and which of them each split may use.

    Glyphs (1797, 8, 8) float32 in 0..1; the digit that each is (1797,) int64; split name -> rows (n,) int64, disjoint.
    """
    from sklearn.datasets import load_digits  # slow to import, and only a build needs it

    digits = load_digits()
    pools = np.split(np.random.default_rng([seed, 0]).permutation(len(digits.target)), POOL_ENDS)
    glyphs, names = (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)
    return glyphs, names, dict(zip(SPLITS, pools, strict=True))


def chunks(n: int, size: int) -> list[np.ndarray]:
    """Split the numbers 0 to n - 1 into runs of at most `size` to be worked on at once, which bounds the memory."""
    return np.array_split(np.arange(n), -(-n // size))


def tints(colour: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Return an RGB near each colour's own, (..., 3, 1, 1) float32; colour (...) counts along COLOUR_NAMES."""
    rgb = np.array([rgb for rgb, _ in COLOURS.values()])[colour] + rng.normal(0, NOISE, (*colour.shape, 3))
    return torch.from_numpy(rgb).float()[..., None, None]


def ground(n: int, size: int, rng: np.random.Generator) -> Tensor:
    """Return dark blotchy grounds, (n, 3, size, size) float32 in 0..255."""
    blotches = rng.uniform(35, 75, (n, 1, 1, 1)) + rng.normal(0, 14, (n, 3, 5, 5))
    return F.interpolate(torch.from_numpy(blotches).float(), size=size, mode="bicubic", align_corners=True)


def ink(glyphs: np.ndarray, size: int, centres: np.ndarray, extent: np.ndarray, angle: np.ndarray) -> Tensor:
    """Return how much ink each pixel has, (n, 1, size, size) float32 in 0..1, for one glyph a picture.

    glyphs (n, 8, 8); centres (n, 2) and extent (n,) as fractions of the picture; angle (n,) in radians.
    """
    smooth = F.interpolate(torch.from_numpy(glyphs)[:, None], size=48, mode="bicubic", align_corners=False)
    # Picture coordinates -> glyph coordinates, both in -1..1.
    rotation = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], axis=-1).reshape(-1, 2, 2)
    linear = rotation / extent[:, None, None]
    offset = -linear @ (2 * centres - 1)[:, :, None]
    theta = torch.from_numpy(np.concatenate([linear, offset], axis=2)).float()
    grid = F.affine_grid(theta, [len(glyphs), 1, size, size], align_corners=False)
    soft = F.grid_sample(smooth, grid, padding_mode="zeros", align_corners=False)
    return ((soft - 0.3) / 0.4).clamp(0, 1)


def develop(canvas: Tensor, rng: np.random.Generator) -> np.ndarray:
    """Return the canvas (n, 3, h, w) as noisy pixels, (n, h, w, 3) uint8."""
    pixels = canvas.permute(0, 2, 3, 1).numpy()
    noisy = pixels + NOISE * rng.standard_normal(pixels.shape, np.float32)
    return noisy.clip(0, 255).astype(np.uint8)


def phrase(digit: int, colour: str, rng: random.Random, sizes: Sequence[str] = ()) -> str:
    """Name a digit, with an article: by its value and its colour or one of these, and maybe by a word of `sizes`."""
    say_digit, say_colour = rng.random() < SAY_DIGIT, rng.random() < SAY_COLOUR
    if not say_digit and not say_colour:
        say_digit = rng.random() < 0.5
        say_colour = not say_digit
    words = rng.choice(NOUNS)
    if say_digit:
        value = NUMBERS[digit] if rng.random() < 0.6 else str(digit)
        words = f"{words} {value}" if rng.random() < 0.2 else value
    if say_colour:
        word = colour_word(colour, rng)
        words = f"{word} {words}" if rng.random() < 0.85 else f"{words} in {colour}"
    if sizes and rng.random() < SAY_SIZE:
        words = f"{rng.choice(sizes)} {words}"
    vowel = words[0] in "aeiou8" and not words.startswith("one")
    return f"{'an' if vowel else 'a'} {words}"


def colour_word(colour: str, rng: random.Random) -> str:
    """Return a word for a colour, mostly the usual one."""
    words = COLOURS[colour][1]
    return words[0] if rng.random() < 0.6 else rng.choice(words)
