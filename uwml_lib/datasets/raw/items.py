"""What making the SCAN layout from raw files takes, whatever they are: items, their captions, and words for errors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from uwml_lib.datasets.precomputed import LONGEST_CAPTION
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_lines, write_lines

IDS_SHOWN = 100


class Item(NamedTuple):
    """What the layout keeps of an image or a video."""

    id: str
    captions: list[str]


def write_items(folder: Path, splits: Mapping[str, Sequence[Item]], source: str) -> None:
    """Write `{split}_caps.txt` and `{split}_ids.txt` of every split; hold the folder's lock.

    Files that are there already are left alone where they say the same. Raises UWMLError, and writes nothing, if they
    say something else than source, the names of the raw files, gives.
    """
    files = {}
    for split, items in splits.items():
        files[folder / f"{split}_caps.txt"] = [caption for item in items for caption in item.captions]
        files[folder / f"{split}_ids.txt"] = [item.id for item in items]
    for file, lines in files.items():
        if file.exists() and read_lines(file) != lines:
            raise UWMLError(f"{file}: found other lines than {source} gives; move it away, or choose another folder")
    for file, lines in files.items():
        write_lines(file, lines)


def read_entries(path: Path, content: Mapping[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the JSON objects in a list of a file's content and where each is; raises UWMLError naming the place."""
    entries = content.get(key)
    if not isinstance(entries, list) or not entries:
        raise UWMLError(f"{path}: {key}: found {shown(entries)}, expected a list of at least one")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise UWMLError(f"{path}: {key}[{number}]: found {shown(entry)}, expected a JSON object")
    return [(f"{path}: {key}[{number}]", entry) for number, entry in enumerate(entries)]


def caption_of(where: str, sentence: Any, key: str) -> str:
    """Return the caption that a JSON object has under a key; see `caption_line`."""
    return caption_line(f"{where}: {key}", sentence.get(key) if isinstance(sentence, dict) else None)


def caption_line(where: str, text: Any) -> str:
    """Return a caption as one line, its white space collapsed to single blanks; raises UWMLError if it is none."""
    line = " ".join(text.split()) if isinstance(text, str) else ""
    lone_surrogate = any("\ud800" <= letter <= "\udfff" for letter in line)  # JSON can hold it, UTF-8 cannot
    if not line or "\0" in line or lone_surrogate or len(line) > LONGEST_CAPTION:
        found = f"{len(line):,} characters" if len(line) > LONGEST_CAPTION else shown(text)
        raise UWMLError(f"{where}: found {found}, expected a text of 1 to {LONGEST_CAPTION:,} characters")
    return line


def shown(value: Any) -> str:
    """A JSON value in a few words."""
    text = "nothing" if value is None else ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def listed(ids: Sequence[str]) -> str:
    """Ids in a row; of many, the first."""
    more = f" and {len(ids) - IDS_SHOWN:,} more" if len(ids) > IDS_SHOWN else ""
    return ", ".join(ids[:IDS_SHOWN]) + more


def names(paths: Sequence[Path]) -> str:
    """Names of files in a row."""
    return ", ".join(path.name for path in paths)
