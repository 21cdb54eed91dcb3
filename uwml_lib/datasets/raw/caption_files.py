"""Caption files in the usual forms, text with the image's name first or JSON -> the captions of every image."""

import csv
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from uwml_lib.datasets.raw.items import caption_line, listed, read_entries, shown
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, read_lines

NAME_KEYS = ("image", "file_name", "filename")
CAPTION_KEYS = ("caption", "captions")
SEPARATORS = {"a tab": "\t", "a comma": ",", "a blank": " "}


class Entry(NamedTuple):
    """A caption: where it stands in the file, the name of its image, and what is to be a text."""

    where: str
    name: str
    caption: Any


def read_captions(path: Path, folder: Path, names: Collection[str]) -> tuple[str, dict[str, list[str]]]:
    """Return the form of a caption file, in words, and the captions of every image, in the order of the file.

    names: the files of `folder`, which captions may be of. Raises UWMLError, naming the line or the place in the JSON,
    for what is no caption, and listing the names that are none of these files.
    """
    form, entries = _json_entries(path) if path.suffix.lower() == ".json" else _text_entries(path, folder, names)
    captions: dict[str, list[str]] = {}
    absent: dict[str, str] = {}
    for where, name, text in entries:
        caption = caption_line(f"{path}: {where}, {name!r}", text)
        if name in names:
            captions.setdefault(name, []).append(caption)
        else:
            absent.setdefault(name, where)
    if absent:
        places = [f"{name!r} ({where})" for name, where in absent.items()]
        raise UWMLError(
            f"{path}: {len(absent):,} names are of no file in {folder}, expected every image there: {listed(places)}"
        )
    if not captions:
        raise UWMLError(f"{path}: found no captions, expected at least one")
    return form, captions


def _text_entries(path: Path, folder: Path, names: Collection[str]) -> tuple[str, list[Entry]]:
    """Choose the form in which the most lines begin with the name of a file: names may hold blanks and commas too."""
    lines = [line.replace("\r", " ") for line in read_lines(path)]
    first = next((number for number, line in enumerate(lines, 1) if line.strip()), None)
    if first is None:
        raise UWMLError(f"{path}: is empty, expected captions")
    readings = ((form, _read(lines, separator, names)[0]) for form, separator in SEPARATORS.items())  # one at a time
    fits = {form: sum(cells[0] in names for _, cells in rows) for form, rows in readings}
    form = max(fits, key=lambda form: fits[form])
    if not fits[form]:
        raise UWMLError(
            f"{path}: line {first}: found {shown(lines[first - 1])}, expected the name of an image of {folder}, then "
            f"{', '.join(SEPARATORS)}, then a caption; no line begins so"
        )
    rows, error = _read(lines, SEPARATORS[form], names)
    if error:
        raise UWMLError(f"{path}: {error}")
    number, columns = rows[0]
    if form != "a blank" and columns[0] not in names and "." not in columns[0] and " " not in "".join(columns):
        if len(columns) != 2:
            found = ", ".join(columns)
            raise UWMLError(f"{path}: line {number}: found the columns {found}, expected two, image and caption")
        rows = rows[1:]
    if form == "a comma" and rows and all(len(cells) > 2 and cells[1].strip().isdigit() for _, cells in rows):
        many = len(rows[0][1])
        raise UWMLError(f"{path}: found {many} columns, the second of numbers, expected two, image and caption")
    entries = [Entry(f"line {line}", name, SEPARATORS[form].join(rest)) for line, (name, *rest) in rows]
    return f"lines of a name, {form} and a caption", entries


def _read(lines: list[str], separator: str, names: Collection[str]) -> tuple[list[tuple[int, list[str]]], str]:
    """Return the lines that are not blank, counted from 1, each with its cells, and what is wrong after them, or ""."""
    quoting: Any = csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE
    reader = csv.reader((f"{line.lstrip(' ')}\n" for line in lines), delimiter=separator, quoting=quoting)
    rows: list[tuple[int, list[str]]] = []
    number = 1
    try:
        for cells in reader:
            if "".join(cells).strip():
                name = cells[0].strip()
                if name not in names:
                    name = re.sub(r"#\d+$", "", name)  # the number of the caption, as in name.jpg#0
                rows.append((number, [name, *cells[1:]]))
            number = reader.line_num + 1  # a quoted caption may go over several
    except csv.Error as error:
        return rows, f"after line {number - 1}: not readable as CSV ({error}); is a quote left open?"
    return rows, ""


def _json_entries(path: Path) -> tuple[str, Iterator[Entry]]:
    content = read_json(path, object)
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        return "COCO's JSON", _coco_entries(path, content)
    if isinstance(content, dict):
        return "JSON from names to captions", (
            Entry(f"caption {number}", name, caption)
            for name, captions in content.items()
            for number, caption in enumerate(_as_list(captions), 1)
        )
    if isinstance(content, list):
        return "JSON, a list of images", _list_entries(path, content)
    raise UWMLError(f"{path}: found {shown(content)}, expected captions as a JSON object or a list")


def _coco_entries(path: Path, content: dict[str, Any]) -> Iterator[Entry]:
    names: dict[int | str, str] = {}
    for where, image in read_entries(path, content, "images"):
        key, name = image.get("id"), image.get("file_name")
        if not isinstance(key, int | str) or not isinstance(name, str):
            raise UWMLError(f"{where}: found {shown(image)}, expected an id and a file_name")
        names[key] = name
    for number, (where, annotation) in enumerate(read_entries(path, content, "annotations")):
        key = annotation.get("image_id")
        if not isinstance(key, int | str) or key not in names:
            raise UWMLError(f"{where}: found {shown(annotation)}, expected the image_id of one of images")
        yield Entry(f"annotations[{number}]", names[key], annotation.get("caption"))


def _list_entries(path: Path, content: list[Any]) -> Iterator[Entry]:
    for number, item in enumerate(content):
        values = item if isinstance(item, dict) else {}
        name, captions = (
            next((values[key] for key in keys if key in values), None) for keys in (NAME_KEYS, CAPTION_KEYS)
        )
        if not isinstance(name, str):
            raise UWMLError(
                f"{path}: [{number}]: found {shown(item)}, expected an object with one of {', '.join(NAME_KEYS)} "
                f"and one of {', '.join(CAPTION_KEYS)}"
            )
        yield from (Entry(f"[{number}]", name, caption) for caption in _as_list(captions))


def _as_list(captions: Any) -> list[Any]:
    """An image may have one caption or a list of them."""
    return captions if isinstance(captions, list) else [captions]
