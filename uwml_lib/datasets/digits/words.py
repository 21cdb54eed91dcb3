"""Words for coloured digits, as people vary them."""

import random

from uwml_lib.datasets.digits.drawing import COLOURS

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NOUNS = ("digit", "digit", "number", "number", "numeral")

# How often a caption names a digit's value and its colour: the lower, the more items a caption fits.
SAY_DIGIT, SAY_COLOUR = 0.93, 0.9


def spoken(text: str, rng: random.Random) -> str:
    """Return a caption with a capital and a full stop, or without, as people write them."""
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    return text + (" ." if rng.random() < 0.6 else "")


def noun(digit: int, colour: str, rng: random.Random) -> str:
    """Name a digit by what it is and its colour, or one of these; without an article."""
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
    return words


def colour_word(colour: str, rng: random.Random) -> str:
    """Return a word for a colour, mostly the usual one."""
    words = COLOURS[colour][1]
    return words[0] if rng.random() < 0.6 else rng.choice(words)


def with_article(words: str) -> str:
    """Put a or an before a noun phrase."""
    vowel = words[0] in "aeiou8" and not words.startswith("one")
    return f"{'an' if vowel else 'a'} {words}"
