"""Captions to tokens to numbers, as SCAN does it: nltk's tokenizers, a count threshold, four special words."""

import functools
import io
import re
import socket
import textwrap
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from uwml_lib.config import Captions
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import read_json, write_json

Tokenizer = Literal["punkt", "word", "plain"]
SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")
PAD, START, END, UNKNOWN = range(4)
NLTK_DATA = paths.DATA / "nltk_data"
TOKENIZERS = {
    "punkt": "Punkt sentence and word tokenizer",
    "word": "word tokenizer alone",
    "plain": "plain expression that stands in for nltk",
}
PLAIN = re.compile(r"(?!.*\b(?:cannot|gimme|gonna|gotta|lemme|wanna)\b)[a-z0-9 ]+\.?")
"""Captions that nltk splits at spaces and before the full stop, whichever tokenizer; it would split these six words."""
WORDS = re.compile(r"n't\b|'(?:s|m|d|ll|re|ve)\b|\w+?(?=n't\b)|\w+(?:[-.]\w+)*|[^\w\s]")
"""Words, with their clitics ('s, n't ...) apart, and marks: how captions are split where there is no nltk at all."""


@functools.cache
def _punkt() -> Any:
    """nltk's English sentence tokenizer, or None where its data, or nltk itself, is not here."""
    from unittest import mock  # slow to import

    try:
        import nltk
        from nltk.tokenize.punkt import PunktTokenizer

        # nltk reads only what lies in its own list of folders, whatever path it is given.
        with mock.patch.object(nltk.data, "path", [*nltk.data.path, str(NLTK_DATA)]):
            return PunktTokenizer("english")
    except (ImportError, LookupError, OSError, ValueError, zipfile.BadZipFile):  # a broken download leaves pieces
        return None


def available_tokenizer() -> Tokenizer:
    """Return "punkt" if nltk can load its English sentence tokenizer, else "word", and "plain" without nltk."""
    try:
        import nltk  # noqa: F401
    except ImportError:
        return "plain"
    return "punkt" if _punkt() else "word"


def download_punkt(timeout: float = 20.0) -> None:
    """Try to bring Punkt into the project's data folder; one sentence says how it went, and nothing fails."""
    if _punkt():
        return
    reason, before = "", socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)
    try:
        import nltk

        nltk.download("punkt_tab", download_dir=str(NLTK_DATA), quiet=True, print_error_to=io.StringIO())
    except Exception as error:  # whatever a proxy, a full disk or a broken archive may raise
        reason = f" ({error})"
    finally:
        socket.setdefaulttimeout(before)
    _punkt.cache_clear()
    instead = f"not to be had{reason}; captions are split by the {TOKENIZERS[available_tokenizer()]}"
    print(f"Punkt sentence tokenizer: {f'in {NLTK_DATA}' if _punkt() else instead}")


def tokenize(caption: str, tokenizer: Tokenizer | None = None) -> list[str]:
    """Split a caption into lower-case tokens; None takes Punkt where its data is there.

    With Punkt a full stop inside a caption that ends a sentence is a token of its own; without, only the last is.
    Without nltk a plain expression splits what is more than words.
    """
    caption = caption.lower()
    if PLAIN.fullmatch(caption):  # nine captions in ten, thirty times as fast
        return caption.replace(".", " .").split()
    tokenizer = tokenizer or available_tokenizer()
    if tokenizer == "plain":
        return WORDS.findall(caption)
    return _words(_sentences(caption) if tokenizer == "punkt" else [caption])


def _sentences(text: str) -> list[str]:
    if not (punkt := _punkt()):
        raise UWMLError("captions: these tokens need nltk's Punkt; `make setup` downloads it, or set NLTK_DATA")
    return punkt.tokenize(text)


def _words(sentences: Iterable[str]) -> list[str]:
    from nltk.tokenize import word_tokenize  # slow to import

    return [token for sentence in sentences for token in word_tokenize(sentence, preserve_line=True)]


# nltk 3.4 to 3.8.1 put a space between an apostrophe and a word of one letter, unless that is a clitic ('s, n't ...).
ONE_LETTER = re.compile(r"'(?![mtsdn])(?=\w\b)", re.IGNORECASE)


def tokenize_released(caption: str, split_one_letter: bool = True) -> list[str]:
    """Split a caption as the released code does under Python 3, where `str()` of its bytes puts it into b'...'.

    split_one_letter: as nltk 3.4 to 3.8.1 did, where `b'a` came apart; nltk 3.2.5, 3.3 and 3.10.4 leave it in one.
    Raises UWMLError without Punkt, which the release had.
    """
    sentences = _sentences(str(caption.encode().strip()).lower())
    return _words(ONE_LETTER.sub("' ", text) if split_one_letter else text for text in sentences)


class Vocabulary:
    """Words and their numbers; `<pad> <start> <end> <unk>` are 0 to 3. where: what errors begin with."""

    def __init__(self, words: Iterable[str], tokenizer: Tokenizer = "punkt", where: str = "vocabulary") -> None:
        self.words = list(words)
        self.index = {word: number for number, word in enumerate(self.words)}
        self.tokenizer: Tokenizer = tokenizer
        first = self.words[: len(SPECIALS)]
        expect(first == [*SPECIALS], where, f"{first} at 0 to 3", " ".join(SPECIALS))
        if twice := [word for word, count in Counter(self.words).items() if count > 1]:
            raise UWMLError(f"{where}: found {twice[0]!r} twice, expected every word once")

    @classmethod
    def build(cls, captions: Iterable[str], threshold: int = 4) -> "Vocabulary":
        """Keep the words that occur at least `threshold` times; the source uses 4, on train and dev captions."""
        tokenizer = available_tokenizer()
        counts = Counter(token for caption in captions for token in tokenize(caption, tokenizer))
        kept = [word for word, count in counts.items() if count >= threshold and word not in SPECIALS]
        return cls([*SPECIALS, *kept], tokenizer)

    @classmethod
    def load(cls, path: Path | str) -> "Vocabulary":
        """Read the released JSON (`word2idx`, `idx2word`, `idx`) with an optional key `tokenizer` (absent: Punkt).

        Warns if the vocabulary was made with another tokenizer than the one to be had here.
        """
        content = read_json(path)
        numbers = content.get("word2idx")
        if not isinstance(numbers, dict) or sorted(map(str, numbers.values())) != sorted(map(str, range(len(numbers)))):
            expected = "a number for every word, from 0 upwards without holes"
            raise UWMLError(f"{path}: word2idx: found {textwrap.shorten(repr(numbers), 80)}, expected {expected}")
        tokenizer = content.get("tokenizer", "punkt")
        known = tokenizer in tuple(TOKENIZERS)
        expect(known, f"{path}: tokenizer", repr(tokenizer), f"one of {', '.join(TOKENIZERS)}")
        vocabulary = cls(sorted(numbers, key=lambda word: int(numbers[word])), tokenizer, f"{path}: vocabulary")
        if tokenizer not in (here := available_tokenizer(), "plain"):
            tokenizers = f"made with the {TOKENIZERS[tokenizer]}, read here with the {TOKENIZERS[here]}"
            warnings.warn(f"{path}: {tokenizers}; rare words may differ", stacklevel=2)
        return vocabulary

    def save(self, path: Path | str) -> None:
        """Write the released JSON, plus the key `tokenizer`."""
        idx2word = {str(number): word for number, word in enumerate(self.words)}
        content = {"word2idx": self.index, "idx2word": idx2word, "idx": len(self), "tokenizer": self.tokenizer}
        write_json(path, content)

    def encode(self, caption: str, style: Captions = "text") -> list[int]:
        """Return `<start>`, the caption's tokens and `<end>` as numbers; a word unknown here is `<unk>`.

        style: bytes and bytes_glued are the tokens of `tokenize_released`.
        """
        if style == "text":
            here = available_tokenizer()
            tokens = tokenize(caption, self.tokenizer if here == "punkt" or self.tokenizer == "plain" else here)
        else:
            tokens = tokenize_released(caption, split_one_letter=style == "bytes")
        return [START, *(self.index.get(token, UNKNOWN) for token in tokens), END]

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Return the words of the numbers."""
        return [self.words[number] for number in numbers]

    def __len__(self) -> int:
        return len(self.words)
