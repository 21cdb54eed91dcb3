"""What every importer of raw files needs: checks, captions, sentences about what is wrong, and the text files."""

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from uwml_lib.datasets.precomputed import LONGEST_CAPTION
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_lines, write_lines
from uwml_lib.support.progress import Say, counted

IDS_SHOWN = 100
SPLITS = {
    "train": "train", "restval": "train", "val": "dev", "dev": "dev", "validate": "dev", "validation": "dev",
    "test": "test",
}  # fmt: skip
"""Split in raw files -> split of the SCAN layout; restval is what COCO's validation images leave over."""

Splits = dict[str, dict[str, list[str]]]
"""Split -> the ids of its images or videos, in order -> the captions of each."""


def images_of(counts: Mapping[str, int]) -> str:
    """Say how many images each split has."""
    return ", ".join(f"{counted(count, 'image')} of {split}" for split, count in counts.items())


def write_items(folder: Path, splits: Splits, source: str) -> None:
    """Write `{split}_caps.txt` and `{split}_ids.txt` of every split; hold the folder's lock.

    Files that say the same already are left alone. Raises UWMLError, and writes nothing, where one says something else
    than source, the names of the raw files, gives.
    """
    files: dict[Path, list[str]] = {}
    for split, items in splits.items():
        files[folder / f"{split}_caps.txt"] = list(chain.from_iterable(items.values()))
        files[folder / f"{split}_ids.txt"] = list(items)
    for file, lines in files.items():
        if file.exists() and read_lines(file) != lines:
            raise UWMLError(f"{file}: found other lines than {source} gives; move it away, or choose another folder")
    for file, lines in files.items():
        write_lines(file, lines)


def first_captions(source: str, splits: Splits, wanted: int | None, kind: str, say: Say) -> Splits:
    """Keep the first captions of every item, as many as wanted, or else as many as all items of its split have.

    kind: image or video. Raises UWMLError listing the items of all splits that have fewer.
    """
    captions = {name: texts for items in splits.values() for name, texts in items.items()}
    least = wanted or 1
    if few := [name for name, texts in captions.items() if len(texts) < least]:
        hint = f"--captions-per-{kind} takes another number, and without it each split keeps its own"
        fewer = f"have fewer than {least} captions ({hint})"
        what = fewer if least > 1 else "have no caption"
        raise UWMLError(listing(source, few, len(captions), kind, what))
    kept: Splits = {}
    for split, items in splits.items():
        number = wanted or min(map(len, items.values()))
        kept[split] = {name: texts[:number] for name, texts in items.items()}
        left_out = sum(map(len, items.values())) - number * len(items)
        rest = f"; {counted(left_out, 'caption')} left out" if left_out else ""
        say(f"{split}: {counted(len(items), kind)}, {counted(number, 'caption')} each{rest}")
    return kept


def expect_value(holds: object, where: Path | str, found: Any, expected: str) -> None:
    """Raise UWMLError about a value of a JSON file unless something holds."""
    if not holds:
        raise UWMLError(f"{where}: found {shown(found)}, expected {expected}")


def read_entries(where: Path | str, content: Mapping[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    """Return where each JSON object in a list of a file's content stands, and the object; raises UWMLError."""
    entries: Any = content.get(key)
    expect_value(isinstance(entries, list) and entries, f"{where}: {key}", entries, "a list of at least one")
    found = [(f"{where}: {key}[{number}]", entry) for number, entry in enumerate(entries)]
    for place, entry in found:
        expect_value(isinstance(entry, dict), place, entry, "a JSON object")
    return found


def expect_once(places: dict[str, str], what: str, where: str) -> None:
    """Note the place of what may be given once; raises UWMLError, naming both places, if it was noted before."""
    if (first := places.setdefault(what, where)) != where:
        raise UWMLError(f"{first} and {where} are both {what}, expected each once")


def split_of(name: str, where: str, places: dict[str, str], entry: Mapping[str, Any]) -> str:
    """Return the SCAN layout's name of an item's split, and note its place; raises UWMLError if it was noted before."""
    expect_once(places, name, where)
    split: Any = entry.get("split")
    expect_value(split in list(SPLITS), f"{where}, {name}: split", split, f"one of {', '.join(SPLITS)}")
    return SPLITS[split]


def plain_id(image: str) -> str:
    """An id without folder, ending, COCO's prefix and the zeros that fill up COCO's numbers."""
    name = re.sub(r"(\.(jpe?g|png|npy|npz))+$", "", image.rpartition("/")[2], flags=re.IGNORECASE)
    return re.sub(r"^(COCO_[a-z]+\d{4}_(?=\d{12}$)|(?=\d{12}$))0*(?=\d)", "", name)


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


def listing(source: Path | str, ids: Sequence[str], total: int, kind: str, what: str) -> str:
    """A sentence about some of the images or videos of a source."""
    return f"{source}: {len(ids):,} of the {total:,} {kind}s {what}: {listed(ids)}"
