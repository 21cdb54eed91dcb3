"""Caption files in the usual forms, text with the image's name first or JSON -> the captions of every image."""

import csv
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from uwml_lib.datasets.raw.items import caption_line, expect_value, listed, read_entries, shown
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import read_json, read_lines

NAME_KEYS = ("image", "file_name", "filename")
CAPTION_KEYS = ("caption", "captions")
SEPARATORS = {"a tab": "\t", "a comma": ",", "a blank": " "}

Entry = tuple[str, str, Any]
"""Where in the file a caption stands, the name of its image, and what is to be its text."""


def read_captions(path: Path, folder: Path, names: Collection[str]) -> tuple[str, dict[str, list[str]]]:
    """Return the form of a caption file, in words, and the captions of every image, in the order of the file.

    names: the files of `folder`, which captions may be of. Raises UWMLError, naming the line or the place in the JSON,
    for what is no caption, and listing the names that are none of these files.
    """
    form, entries = _read_json(path) if path.suffix.lower() == ".json" else _read_text(path, folder, names)
    captions: dict[str, list[str]] = {}
    absent: dict[str, str] = {}
    for where, name, text in entries:
        captions.setdefault(name, []).append(caption_line(f"{path}: {where}, {name!r}", text))
        if name not in names:
            absent.setdefault(name, where)
    if absent:
        places = listed([f"{name!r} ({where})" for name, where in absent.items()])
        found = f"{len(absent):,} names are of no file in {folder}"
        raise UWMLError(f"{path}: {found}, expected every image there: {places}")
    expect(captions, path, "no captions", "at least one")
    return form, captions


def _read_text(path: Path, folder: Path, names: Collection[str]) -> tuple[str, Iterator[Entry]]:
    """Choose the form in which the most lines begin with the name of a file: names may hold blanks and commas too."""
    lines = [line.replace("\r", " ").lstrip(" ") for line in read_lines(path)]
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise UWMLError(f"{path}: is empty, expected captions")
    fits = {form: sum(cells[0] in names for _, cells in _cells(lines, form, names)[0]) for form in SEPARATORS}
    form = max(fits, key=lambda form: fits[form])
    if not fits[form]:
        raise UWMLError(
            f"{path}: line {first + 1}: found {shown(lines[first])}, expected the name of an image of {folder}, then "
            f"{', '.join(SEPARATORS)}, then a caption; no line begins so"
        )
    rows, error = _cells(lines, form, names)
    if error:
        raise UWMLError(f"{path}: {error}")
    number, columns = rows[0]
    if form != "a blank" and columns[0] not in names and "." not in columns[0] and " " not in "".join(columns):
        found = f"the columns {', '.join(columns)}"
        expect(len(columns) == 2, f"{path}: line {number}", found, "two, image and caption")
        del rows[0]
    if form == "a comma" and rows and all(len(cells) > 2 and cells[1].strip().isdigit() for _, cells in rows):
        found = f"{len(rows[0][1])} columns, the second of numbers"
        raise UWMLError(f"{path}: found {found}, expected two, image and caption")
    entries = ((f"line {line}", name, SEPARATORS[form].join(rest)) for line, (name, *rest) in rows)
    return f"lines of a name, {form} and a caption", entries


def _cells(lines: list[str], form: str, names: Collection[str]) -> tuple[list[tuple[int, list[str]]], str]:
    """Return the lines that are not blank, counted from 1, each with its cells, and what is wrong after them, or ""."""
    quoting: Any = csv.QUOTE_MINIMAL if form == "a comma" else csv.QUOTE_NONE
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=SEPARATORS[form], quoting=quoting)
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


def _read_json(path: Path) -> tuple[str, Iterator[Entry]]:
    content = read_json(path, object)
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        return "COCO's JSON", _of_coco(path, content)
    if isinstance(content, dict):
        return "JSON from names to captions", (
            (f"caption {number}", name, caption)
            for name, captions in content.items()
            for number, caption in enumerate(_as_list(captions), 1)
        )
    expect_value(isinstance(content, list), path, content, "captions as a JSON object or a list")
    return "JSON, a list of images", _of_list(path, content)


def _of_coco(path: Path, content: dict[str, Any]) -> Iterator[Entry]:
    names: dict[Any, str] = {}
    for where, image in read_entries(path, content, "images"):
        key, name = image.get("id"), image.get("file_name")
        expect_value(isinstance(key, int | str) and isinstance(name, str), where, image, "an id and a file_name")
        names[key] = str(name)
    for number, (where, annotation) in enumerate(read_entries(path, content, "annotations")):
        key = annotation.get("image_id")
        expect_value(isinstance(key, int | str) and key in names, where, annotation, "the image_id of one of images")
        yield f"annotations[{number}]", names[key], annotation.get("caption")


def _of_list(path: Path, content: list[Any]) -> Iterator[Entry]:
    expected = f"an object with one of {', '.join(NAME_KEYS)} and one of {', '.join(CAPTION_KEYS)}"
    for number, item in enumerate(content):
        values = item if isinstance(item, dict) else {}
        name: Any = next((values[key] for key in NAME_KEYS if key in values), None)
        captions = next((values[key] for key in CAPTION_KEYS if key in values), None)
        expect_value(isinstance(name, str), f"{path}: [{number}]", item, expected)
        yield from ((f"[{number}]", name, caption) for caption in _as_list(captions))


def _as_list(captions: Any) -> list[Any]:
    return captions if isinstance(captions, list) else [captions]
