"""Caption files in the usual forms, text with the image's name first or JSON -> the captions of every image."""

import contextlib
import csv
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from uwml_lib.datasets.raw.items import caption_line, listed, shown
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, read_lines

NAME_KEYS = ("image", "file_name", "filename")
CAPTION_KEYS = ("caption", "captions")


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


# Text: every row is its line, counted from 1, and its cells


def _rows_by_tab(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    return ((number, line.split("\t")) for number, line in enumerate(lines, 1))


def _rows_by_comma(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    reader, line = csv.reader(f"{line}\n" for line in lines), 1
    for cells in reader:
        yield line, cells
        line = reader.line_num + 1  # a quoted caption may go over several


def _rows_by_blank(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    return ((number, line.split(maxsplit=1)) for number, line in enumerate(lines, 1))


TEXT_FORMS: dict[str, tuple[str, Callable[[list[str]], Iterator[tuple[int, list[str]]]]]] = {
    "a tab": ("\t", _rows_by_tab),
    "a comma": (",", _rows_by_comma),
    "a blank": (" ", _rows_by_blank),
}


def _text_entries(path: Path, folder: Path, names: Collection[str]) -> tuple[str, Iterator[Entry]]:
    """Choose the form in which the most lines begin with the name of a file: names may hold blanks and commas too."""
    lines = read_lines(path)
    first = next((number for number, line in enumerate(lines, 1) if line.strip()), None)
    if first is None:
        raise UWMLError(f"{path}: is empty, expected captions")
    fits = {form: _count(rows(lines), names) for form, (_, rows) in TEXT_FORMS.items()}
    form = max(fits, key=lambda form: fits[form])
    if not fits[form]:
        raise UWMLError(
            f"{path}: line {first}: found {shown(lines[first - 1])}, expected the name of an image of {folder}, then "
            f"{', '.join(TEXT_FORMS)}, then a caption; no line begins so"
        )
    if form == "a comma":
        _refuse_numbers(path, lines)
    return f"lines of a name, {form} and a caption", _entries(path, form, lines, names)


def _refuse_numbers(path: Path, lines: list[str]) -> None:
    """Raise UWMLError for a column of numbers between names and captions, which would become part of the captions."""
    with contextlib.suppress(csv.Error):  # said of its line later
        rows = [cells for _, cells in _rows_by_comma(lines) if "".join(cells).strip()]
        if all(len(cells) > 2 and cells[1].strip().isdigit() for cells in rows):
            raise UWMLError(
                f"{path}: found {len(rows[0])} columns, the second of numbers, expected two, image and caption"
            )


def _count(rows: Iterator[tuple[int, list[str]]], names: Collection[str]) -> int:
    count = 0
    try:
        for _, cells in rows:
            count += bool(cells) and _name(cells[0], names) in names
    except csv.Error:  # whether that matters depends on the other forms
        pass
    return count


def _entries(path: Path, form: str, lines: list[str], names: Collection[str]) -> Iterator[Entry]:
    separator, rows = TEXT_FORMS[form]
    first, number = form != "a blank", 0
    try:
        for number, cells in rows(lines):
            if not "".join(cells).strip():
                continue
            name = _name(cells[0], names)
            columns = first and name not in names and "." not in name and not any(" " in cell for cell in cells)
            if columns and len(cells) != 2:
                raise UWMLError(
                    f"{path}: line {number}: found the columns {', '.join(cells)}, expected two, image and caption"
                )
            if not columns:
                yield Entry(f"line {number}", name, separator.join(cells[1:]))
            first = False
    except csv.Error as error:
        raise UWMLError(f"{path}: after line {number}: not readable as CSV ({error}); is a quote left open?") from error


def _name(cell: str, names: Collection[str]) -> str:
    """Take the number of the caption off a name, as in `name.jpg#0`."""
    name = cell.strip()
    return name if name in names else re.sub(r"#\d+$", "", name)


# JSON


def _json_entries(path: Path) -> tuple[str, Iterator[Entry]]:
    content = read_json(path, object)
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        return "COCO's JSON", _coco_entries(path, content)
    if isinstance(content, dict):
        return "JSON from names to captions", _entries_of(content.items())
    if isinstance(content, list):
        return "JSON, a list of images", _list_entries(path, content)
    raise UWMLError(f"{path}: found {shown(content)}, expected captions as a JSON object or a list")


def _coco_entries(path: Path, content: dict[str, Any]) -> Iterator[Entry]:
    names: dict[int | str, str] = {}
    for number, image in enumerate(content["images"]):
        key, name = (image.get("id"), image.get("file_name")) if isinstance(image, dict) else (None, None)
        if not isinstance(key, int | str) or not isinstance(name, str):
            raise UWMLError(f"{path}: images[{number}]: found {shown(image)}, expected an id and a file_name")
        names[key] = name
    annotations = content.get("annotations")
    if not isinstance(annotations, list):
        raise UWMLError(f"{path}: annotations: found {shown(annotations)}, expected a list, as images is there")
    for number, annotation in enumerate(annotations):
        key = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not isinstance(key, int | str) or key not in names:
            raise UWMLError(
                f"{path}: annotations[{number}]: found {shown(annotation)}, expected the image_id of one of images"
            )
        yield Entry(f"annotations[{number}]", names[key], annotation.get("caption"))


def _list_entries(path: Path, content: list[Any]) -> Iterator[Entry]:
    for number, item in enumerate(content):
        name, caption = (_value(item, keys) for keys in (NAME_KEYS, CAPTION_KEYS))
        if not isinstance(name, str):
            raise UWMLError(
                f"{path}: [{number}]: found {shown(item)}, expected an object with one of {', '.join(NAME_KEYS)} "
                f"and one of {', '.join(CAPTION_KEYS)}"
            )
        yield from _entries_of([(name, caption)], f"[{number}]")


def _value(item: Any, keys: tuple[str, ...]) -> Any:
    return next((item[key] for key in keys if key in item), None) if isinstance(item, dict) else None


def _entries_of(items: Any, place: str = "") -> Iterator[Entry]:
    """Yield the captions of images, which have one or a list of them; place: where, if not under the image's name."""
    for name, captions in items:
        for number, caption in enumerate(captions if isinstance(captions, list) else [captions]):
            yield Entry(place or f"caption {number + 1}", name, caption)
