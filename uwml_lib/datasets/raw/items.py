"""What every importer of raw files needs: items with their captions, checks, and sentences about what is wrong."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from uwml_lib.datasets.precomputed import LONGEST_CAPTION
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_lines, write_lines
from uwml_lib.support.progress import Say

IDS_SHOWN = 100

Entry = tuple[str, dict[str, Any]]
"""A JSON object, and before it where it stands."""


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


def by_split(splits: Iterable[str], items: Iterable[tuple[str, Item]]) -> dict[str, list[Item]]:
    """Return split -> its items, in the order of splits; splits without items are left out."""
    found: dict[str, list[Item]] = {split: [] for split in splits}
    for split, item in items:
        found[split].append(item)
    return {split: some for split, some in found.items() if some}


def first_captions(
    source: str, captions: Mapping[str, list[str]], wanted: int | None, kind: str, say: Say
) -> dict[str, list[str]]:
    """Keep the first captions of every item, as many as wanted, or else as many as all items have.

    kind: image or video. Raises UWMLError listing the items that have fewer.
    """
    number = wanted or min(map(len, captions.values()))
    few = [name for name, texts in captions.items() if len(texts) < max(1, number)]
    if few and number:
        what = f"have fewer than {number} captions (--captions-per-{kind} takes another number)"
        raise UWMLError(listing(source, few, len(captions), kind, what))
    if few:
        raise UWMLError(listing(source, few, len(captions), kind, "have no caption"))
    left_out = sum(map(len, captions.values())) - number * len(captions)
    say(f"captions of each of the {len(captions):,} {kind}s: {number}; left out: {left_out:,}")
    return {name: texts[:number] for name, texts in captions.items()}


def read_entries(where: Path | str, content: Mapping[str, Any], key: str) -> list[Entry]:
    """Return the JSON objects in a list of a file's content; raises UWMLError naming the place."""
    entries = content.get(key)
    if not isinstance(entries, list) or not entries:
        raise UWMLError(f"{where}: {key}: found {shown(entries)}, expected a list of at least one")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise UWMLError(f"{where}: {key}[{number}]: found {shown(entry)}, expected a JSON object")
    return [(f"{where}: {key}[{number}]", entry) for number, entry in enumerate(entries)]


def split_of(where: str, entry: Mapping[str, Any], splits: Mapping[str, str]) -> str:
    """Return the split of the SCAN layout that an entry's split stands for; raises UWMLError naming the place."""
    if (split := entry.get("split")) not in list(splits):
        raise UWMLError(f"{where}: split: found {shown(split)}, expected one of {', '.join(splits)}")
    return splits[split]


def check_once(places: dict[str, str], name: str, where: str) -> None:
    """Note where an item is; raises UWMLError if it was noted before."""
    if (first := places.setdefault(name, where)) != where:
        raise UWMLError(f"{first} and {where} are both {name}, expected each once")


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


def names(paths: Sequence[Path]) -> str:
    """Names of files in a row."""
    return ", ".join(path.name for path in paths)
