"""Caption files in the usual forms, text with the image's name first or JSON -> the captions of every image."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from uwml_lib.datasets.raw.items import SPLITS, caption_line, expect_once, expect_value, listed, read_entries, shown
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import parse_json, read_json, read_lines
from uwml_lib.support.progress import counted

NAME_KEYS = ("image", "file_name", "filename")
CAPTION_KEYS = ("caption", "captions", "text")
SEPARATORS = {"a tab": "\t", "a comma": ",", "a vertical bar": "|", "a blank": " "}
LONGEST_NAME = 5000
QUOTES = "; a caption with quotes or commas goes between quotes, with those within it written twice"
COLUMNS = f"an image and a caption, and in every line or in none a number between them or a split ({', '.join(SPLITS)})"


class Entry(NamedTuple):
    """Where in the file a caption stands, the name of its image, what is to be its text, and the split, if any."""

    where: str
    name: str
    text: Any
    split: Any = None


class Row(NamedTuple):
    """A line, counted from 1, the number of the caption in name.jpg#0, if any, and the cells, the name first."""

    line: int
    number: str
    cells: list[str]


def read_captions(path: Path, folder: Path, names: Collection[str]) -> tuple[str, dict[str, list[str]], dict[str, str]]:
    """Return the form of a caption file, in words, the captions of every image, and its split, in the file's order.

    names: the files of `folder`, which captions may be of. Splits are the SCAN layout's; a file that gives none has
    none. Raises UWMLError, naming the line or the place in the JSON, for what is no caption, for splits that contradict
    each other or are lacking, and listing the names that are none of these files.
    """
    reader = {".json": _read_json, ".jsonl": _read_json_lines}.get(path.suffix.lower(), _read_text)
    form, entries = reader(path, folder, names)
    captions: dict[str, list[str]] = {}
    splits: dict[str, tuple[str | None, str]] = {}
    absent: dict[str, str] = {}
    for where, name, text, given in entries:
        place = f"{path}: {where}, {name!r}"
        captions.setdefault(name, []).append(caption_line(place, text))
        expect_value(given is None or given in list(SPLITS), f"{place}: split", given, f"one of {', '.join(SPLITS)}")
        split, first = splits.setdefault(name, (given and SPLITS[given], place))
        if split != (given and SPLITS[given]):
            raise UWMLError(
                f"{first} has {_split(split)}, and {place} has {_split(given)}, expected one split an image"
            )
        if name not in names:
            absent.setdefault(name, where)
    if absent:
        places = listed([f"{name!r} ({where})" for name, where in absent.items()])
        found = f"no file in {folder} for {counted(len(absent), 'name')}"
        raise UWMLError(f"{path}: {found}, expected every image there: {places}")
    expect(captions, path, "no captions", "at least one")
    have = {name: split for name, (split, _) in splits.items() if split}
    if have and (lack := [name for name in captions if name not in have]):
        raise UWMLError(f"{path}: {len(lack):,} of the {len(captions):,} images have no split: {listed(lack)}")
    return form, captions, have


def _split(name: str | None) -> str:
    return f"the split {name}" if name else "no split"


def _read_text(path: Path, folder: Path, names: Collection[str]) -> tuple[str, Iterator[Entry]]:
    """Choose the form in which the most lines begin with the name of a file: names may hold blanks and commas too."""
    lines = [line.replace("\r", " ").lstrip(" ") for line in read_lines(path)]
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise UWMLError(f"{path}: is empty, expected captions")
    named = {form: _named_lines(lines, form, names) for form in SEPARATORS}
    form = max(named, key=lambda form: len(named[form]))
    if not named[form]:
        raise UWMLError(
            f"{path}: line {first + 1}: found {shown(lines[first])}, expected the name of an image of {folder}, then "
            f"{', '.join(SEPARATORS)}, then a caption; no line begins so"
        )
    rows = _rows(path, lines, form, names, named[form])
    columns = [cell.strip() for cell in rows[0].cells]
    header = form != "a blank" and columns[0] not in names and "." not in columns[0] and " " not in "".join(columns)
    where = f"{path}: line {rows[0].line}"
    if header:
        del rows[0]
    taken = _take_columns(path, form, rows)
    if header:
        expect(len(columns) == 2 + len(taken), where, f"the columns {', '.join(columns)}", COLUMNS)
    _check_widths(path, form, rows, header)
    words = f"lines of a name, {form} and a caption{''.join(f', and a column of {kind}s' for kind in taken)}"
    return words, _of_rows(path, form, rows, taken)


def _reader(lines: Iterable[str], form: str, strict: bool) -> Any:
    quoting: Any = csv.QUOTE_MINIMAL if form == "a comma" else csv.QUOTE_NONE
    blanks = form == "a blank"  # several are one
    return csv.reader(lines, delimiter=SEPARATORS[form], quoting=quoting, strict=strict, skipinitialspace=blanks)


def _name(cell: str, names: Collection[str]) -> tuple[str, str]:
    """Return the name of an image and, where it is none of a file, the number of the caption behind it, or ""."""
    name = cell.strip()
    numbered = None if name in names else re.fullmatch(r"(.*)#(\d+)", name)
    return (numbered[1], numbered[2]) if numbered else (name, "")


def _named_lines(lines: list[str], form: str, names: Collection[str]) -> set[int]:
    """Return the lines, counted from 1, that begin with the name of a file, each read for itself."""
    cells: Iterator[list[str]] = (next(_reader([line[:LONGEST_NAME]], form, strict=False), []) for line in lines)
    return {number for number, found in enumerate(cells, 1) if found and _name(found[0], names)[0] in names}


def _rows(path: Path, lines: list[str], form: str, names: Collection[str], named: Collection[int]) -> list[Row]:
    """Return the lines that are not blank; a quoted caption may go over several, but not into another image's."""
    reader, rows, line = _reader((f"{line}\n" for line in lines), form, strict=True), [], 1
    try:
        for cells in reader:
            if swallowed := next((number for number in range(line + 1, reader.line_num + 1) if number in named), 0):
                found = f"a quote that is still open in line {swallowed}, which begins with the name of an image"
                raise UWMLError(f"{path}: line {line}: found {found}; expected it closed{QUOTES}")
            if "".join(cells).strip():
                name, number = _name(cells[0], names)
                rows.append(Row(line, number, [name, *cells[1:]]))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UWMLError(
            f"{path}: line {line}: not readable as CSV ({error}), expected every quote closed{QUOTES}"
        ) from error
    return rows


def _is_number(cell: str) -> bool:
    return cell.isdecimal() and len(cell) < 10


def _take_columns(path: Path, form: str, rows: list[Row]) -> dict[str, list[str]]:
    """Take the columns out of the rows that are neither name nor caption: number, split -> the cell of every row."""
    if form == "a vertical bar" and any(len(row.cells) > 2 and _is_number(row.cells[1].strip()) for row in rows):
        for row in rows:  # Flickr30K's results.csv has a row without the bar between number and caption
            if len(row.cells) == 2 and (parts := re.fullmatch(r"\s*(\d+)\s+(.+)", row.cells[1])):
                row.cells[1:] = parts.groups()
    taken: dict[str, list[str]] = {}
    kinds: list[tuple[str, int, Callable[[str], bool]]] = [
        ("split", -1, SPLITS.__contains__), ("number", 1, _is_number), ("split", 1, SPLITS.__contains__),
        ("number", 1, _is_number),  # behind the split
    ]  # fmt: skip
    for kind, column, fits in kinds:
        has = [len(row.cells) > 2 and fits(row.cells[column].strip()) for row in rows]
        if kind in taken or not any(has) or (form == "a blank" and not all(has)):
            continue
        with_it, without = rows[has.index(True)].line, rows[has.index(False)].line if False in has else 0
        if without or form == "a blank":
            found = f"a {kind} in {f'line {with_it} and none in line {without}' if without else 'every line'}"
            expected = "a tab between the columns" if form == "a blank" else COLUMNS
            raise UWMLError(f"{path}: found {found}, expected {expected}{QUOTES if form == 'a comma' else ''}")
        taken[kind] = [row.cells.pop(column).strip() for row in rows]
    return taken


def _check_widths(path: Path, form: str, rows: list[Row], header: bool) -> None:
    """Raise UWMLError for more columns than name and caption; commas without quotes may stand in a caption."""
    wide = [row for row in rows if len(row.cells) > 2]
    varied = len({len(row.cells) for row in rows}) > 1
    if wide and form != "a blank" and (form != "a comma" or not (header or varied)):
        found = f"{shown(wide[0].cells[-1])} in another column"
        where, advice = f"{path}: line {wide[0].line}", QUOTES if form == "a comma" else ""
        raise UWMLError(f"{where}: found {found}, expected {COLUMNS}{advice}")


def _of_rows(path: Path, form: str, rows: list[Row], taken: dict[str, list[str]]) -> Iterator[Entry]:
    times = Counter(row.cells[0] for row in rows)
    numbers, splits = taken.get("number", [row.number for row in rows]), taken.get("split", [None] * len(rows))
    places: dict[str, str] = {}
    for (line, _, (name, *rest)), number, split in zip(rows, numbers, splits, strict=True):
        where = f"line {line}"
        if number:
            expect_once(places, f"caption {number} of {name!r}", f"{path}: {where}")
        if "number" in taken and int(number) > times[name]:
            found = f"the number {number} beside one of {times[name]} captions of {name!r}"
            raise UWMLError(f"{path}: {where}: found {found}, expected these numbered from 0 or 1 on")
        yield Entry(where, name, SEPARATORS[form].join(rest), split)


def _read_json(path: Path, _: Path, names: Collection[str]) -> tuple[str, Iterator[Entry]]:
    content = read_json(path, object)
    images = content.get("images") if isinstance(content, dict) else None
    if isinstance(images, list):
        has_sentences = any(isinstance(image, dict) and "sentences" in image for image in images)
        if has_sentences and "annotations" not in content:
            return "Karpathy's JSON", _of_karpathy(path, content, names)
        return "COCO's JSON", _of_coco(path, content)
    if isinstance(content, dict):
        return "JSON from names to captions", (
            Entry(f"caption {number}", name, caption)
            for name, captions in content.items()
            for number, caption in enumerate(_as_list(captions), 1)
        )
    expect_value(isinstance(content, list), path, content, "captions as a JSON object or a list")
    return "JSON, a list of images", _of_list(path, ((f"[{number}]", item) for number, item in enumerate(content)))


def _read_json_lines(path: Path, *_: Any) -> tuple[str, Iterator[Entry]]:
    lines = ((f"line {number}", line) for number, line in enumerate(read_lines(path), 1) if line.strip())
    return "JSON, a line an image", _of_list(
        path, ((where, parse_json(f"{path}: {where}", line)) for where, line in lines)
    )


def _of_coco(path: Path, content: dict[str, Any]) -> Iterator[Entry]:
    images: dict[Any, dict[str, Any]] = {}
    places: dict[str, str] = {}
    for where, image in read_entries(path, content, "images"):
        key, name = image.get("id"), image.get("file_name")
        expect_value(type(key) in (int, str) and isinstance(name, str), where, image, "an id and a file_name")
        expect_once(places, f"of the id {key!r}", f"{where}, {name!r},")
        expect_once(places, f"of {name!r}", f"{where}, id {key!r},")
        images[key] = image
    for number, (where, annotation) in enumerate(read_entries(path, content, "annotations")):
        key = annotation.get("image_id")
        expect_value(type(key) in (int, str) and key in images, where, annotation, "the image_id of one of images")
        image = images[key]
        yield Entry(f"annotations[{number}]", image["file_name"], annotation.get("caption"), image.get("split"))


def _of_karpathy(path: Path, content: dict[str, Any], names: Collection[str]) -> Iterator[Entry]:
    """COCO's images are in one folder for each of its own splits, the `filepath`, or all in one."""
    places: dict[str, str] = {}
    for number, (where, image) in enumerate(read_entries(path, content, "images")):
        name = image.get("filename")
        expect_value(isinstance(name, str), f"{where}: filename", name, "the name of a file")
        name = longer if (longer := f"{image.get('filepath')}/{name}") in names else str(name)
        expect_once(places, repr(name), where)
        for k, (_, sentence) in enumerate(read_entries(where, image, "sentences")):
            yield Entry(f"images[{number}], sentences[{k}]", name, sentence.get("raw"), image.get("split"))


def _of_list(path: Path, items: Iterable[tuple[str, Any]]) -> Iterator[Entry]:
    expected = f"an object with one of {', '.join(NAME_KEYS)} and one of {', '.join(CAPTION_KEYS)}"
    for where, item in items:
        values = item if isinstance(item, dict) else {}
        found = [[values[key] for key in keys if key in values] for keys in (NAME_KEYS, CAPTION_KEYS)]
        expect_value([len(some) for some in found] == [1, 1], f"{path}: {where}", item, expected)
        (name,), (captions,) = found
        expect_value(isinstance(name, str), f"{path}: {where}", item, expected)
        yield from (Entry(where, name, caption, values.get("split")) for caption in _as_list(captions))


def _as_list(captions: Any) -> list[Any]:
    return captions if isinstance(captions, list) else [captions]
