"""Bottom-up attention's TSV files to the SCAN layout: `{split}_ims.npy` and `{split}_boxes.npy`, row by row."""

import base64
import binascii
import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from uwml_lib.datasets.raw.growing import Shapes, begin, finish, note, open_arrays, refuse_foreign
from uwml_lib.datasets.raw.items import listed, names
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import check_is_file, lock, read_lines
from uwml_lib.support.progress import Say, progress, say

SPLITS = ("train", "dev", "test", "testall")
COLUMNS = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")
LONGEST_ROW = 2**26
"""Bytes; a longer line is no row (36 boxes of 2048 numbers take 400 KB) and would fill the memory."""
ROWS_A_STEP = 1000
"""Rows between two notes of how far the work is: so many, at most, are decoded again after an interruption."""

Places = dict[str, list[tuple[str, int]]]
"""Image -> the splits it is in, and its row in each."""


class Row(NamedTuple):
    """Where the row of a wanted image is: its line, counted from 1, and the byte it starts at."""

    image: str
    path: Path
    line: int
    offset: int


class Columns(NamedTuple):
    """What a row says; boxes and features are base64 of little-endian float32."""

    image: str
    num_boxes: int
    boxes: bytes
    features: bytes


class Found(NamedTuple):
    """The rows of all wanted images in the order of the files, the (boxes, dim) of each, and a digest of the files."""

    rows: list[Row]
    shape: tuple[int, int]
    digest: str


def write_features(folder: Path, tsvs: Sequence[Path], /, boxes: int = 36, say: Say = say) -> None:
    """Write the features and boxes of every split, from bottom-up attention's TSV files. Called again it goes on.

    They go to `{split}_ims.npy` (n, boxes, dim) and `{split}_boxes.npy` (n, boxes, 4), float32, in the order of
    `{split}_ids.txt`. Boxes stay as the TSV has them, in pixels. The files are read twice: once to find every wanted
    image, once to decode its row, so that only damaged base64 and numbers that are not finite are found late. An image
    of several splits is written to each; rows of other images are passed over. One row at a time is in memory. After a
    kill the same call goes on, to the same bytes.

    Args:
        folder: The data set's folder, with the ids that `uwml captions` writes.
        tsvs: The TSV files; their rows may be in any order.
        boxes: Boxes that every image has.

    Raises:
        UWMLError: The file and line are named, or the images listed.
    """
    if not tsvs:
        raise UWMLError("TSV: found no file, expected at least one")
    if boxes < 1:
        raise UWMLError(f"boxes: found {boxes}, expected at least 1")
    for path in tsvs:
        check_is_file(path)
    places = _read_places(folder)
    images = Counter(split for rows in places.values() for split, _ in rows)
    with lock(folder, say):
        refuse_foreign(folder, images)
        size = sum(path.stat().st_size for path in tsvs)
        say(f"1/2 looking for {len(places):,} images in {names(tsvs)}, {size / 1e9:.1f} GB")
        found = _find(tsvs, places, boxes, say)
        shapes: Shapes = {f"{split}_ims": (n, *found.shape) for split, n in images.items()}
        shapes |= {f"{split}_boxes": (n, boxes, 4) for split, n in images.items()}
        inputs = hashlib.sha256(json.dumps([found.digest, boxes, places]).encode()).hexdigest()
        done = begin(folder, images, shapes, inputs, len(found.rows))
        say(
            f"2/2 writing {len(found.rows):,} rows of {boxes} boxes x {found.shape[1]:,} numbers"
            + (f", {done:,} of which were written before" if done else "")
        )
        if done < len(found.rows):
            _write(folder, shapes, places, found, inputs, done)
        finish(folder, shapes, say)


def _read_places(folder: Path) -> Places:
    places: Places = {}
    for split in SPLITS:
        path = folder / f"{split}_ids.txt"
        ids = read_lines(path) if path.exists() else []
        if "" in ids:
            raise UWMLError(f"{path}: line {ids.index('') + 1} is empty, expected the id of an image")
        if repeated := [image for image, count in Counter(ids).items() if count > 1]:
            raise UWMLError(f"{path}: found more than once: {listed(repeated)}; expected every image once")
        for number, image in enumerate(ids):
            places.setdefault(image, []).append((split, number))
    if not places:
        files = ", ".join(f"{split}_ids.txt" for split in SPLITS)
        raise UWMLError(f"{folder}: found none of {files}, expected the ids that `uwml captions` writes")
    return places


# Reading


def _find(tsvs: Sequence[Path], places: Places, boxes: int, say: Say) -> Found:
    """Find the row of every wanted image; raises UWMLError listing those that have none, several, or another shape."""
    rows: list[Row] = []
    times: Counter[str] = Counter()
    wrong: dict[str, int] = {}
    others, dim, digest = 0, 0, hashlib.sha256()
    for path in tsvs:
        for row, line in progress(_lines(path), f"{path.name}: rows"):
            digest.update(line)
            columns = _columns(row, line)
            if columns.image not in places:
                others += 1
                continue
            row = row._replace(image=columns.image)
            times[row.image] += 1
            if columns.num_boxes != boxes:
                wrong[row.image] = columns.num_boxes
                continue
            _check_size(row, "boxes", columns.boxes, boxes, 4)
            dim = dim or max(1, _decoded_size(columns.features) // (4 * boxes))
            _check_size(row, "features", columns.features, boxes, dim)
            rows.append(row)
    counts = ", ".join(map(str, sorted(set(wrong.values()))[:10]))
    problems = {
        "are missing": [image for image in places if image not in times],
        "have several rows, expected one": [image for image, count in times.items() if count > 1],
        f"have {counts} boxes, expected {boxes} (--boxes takes another number)": list(wrong),
    }
    if sentences := [
        f"{names(tsvs)}: {len(ids):,} of the {len(places):,} images {what}: {listed(ids)}"
        for what, ids in problems.items()
        if ids
    ]:
        raise UWMLError("\n".join(sentences))
    if others:
        say(f"  rows left out, for no split has their image: {others:,}")
    return Found(rows, (boxes, dim), digest.hexdigest())


def _lines(path: Path) -> Iterator[tuple[Row, bytes]]:
    """Yield every line and where it is; whose row it is, is yet to be read."""
    number = offset = 0
    with open(path, "rb", buffering=2**20) as file:
        while line := file.readline(LONGEST_ROW):
            number += 1
            row = Row("", path, number, offset)
            if len(line) == LONGEST_ROW:
                raise UWMLError(f"{_where(row)}: found {LONGEST_ROW:,} bytes and no end, expected a row of a TSV file")
            yield row, line
            offset += len(line)
    if not number:
        raise UWMLError(f"{path}: is empty, expected rows of {', '.join(COLUMNS)}")


def _where(row: Row) -> str:
    return f"{row.path}: line {row.line}" + (f", image {row.image}" if row.image else "")


def _columns(row: Row, line: bytes) -> Columns:
    words = line.rstrip(b"\r\n").split(b"\t")
    if len(words) != len(COLUMNS):
        raise UWMLError(
            f"{_where(row)}: found {len(words)} columns, expected {len(COLUMNS)}, between tabs: {', '.join(COLUMNS)}"
        )
    try:
        image = words[0].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UWMLError(f"{_where(row)}: image_id: not readable as UTF-8 text ({error})") from error
    for name, word in zip(COLUMNS[1:4], words[1:4], strict=True):
        if not word.isdigit() or len(word) > 9:
            raise UWMLError(f"{_where(row)}: {name}: found {word[:20]!r}, expected a whole number")
    return Columns(image, int(words[3]), words[4], words[5])


def _decoded_size(text: bytes) -> int:
    """Return how many bytes base64 text stands for."""
    return len(text) // 4 * 3 - text[-2:].count(b"=")


def _check_size(row: Row, name: str, text: bytes, boxes: int, dim: int) -> None:
    size, expected = _decoded_size(text), 4 * boxes * dim
    if size != expected or len(text) % 4:
        raise UWMLError(
            f"{_where(row)}: {name}: found {len(text):,} letters of base64 for {size:,} bytes, expected {expected:,} "
            f"bytes: {boxes} boxes x {dim:,} numbers in float32, as in every row"
        )


def _numbers(row: Row, name: str, text: bytes, shape: tuple[int, int]) -> np.ndarray:
    """Decode a column of a row; float32."""
    try:
        numbers = np.frombuffer(base64.b64decode(text, validate=True), "<f4").reshape(shape)
    except (binascii.Error, ValueError) as error:
        raise UWMLError(f"{_where(row)}: {name}: not readable as base64 of float32 ({error})") from error
    if not np.isfinite(numbers).all():
        raise UWMLError(f"{_where(row)}: {name}: found NaN or infinity, expected finite numbers")
    return numbers


# Writing


def _write(folder: Path, shapes: Shapes, places: Places, found: Found, inputs: str, done: int) -> None:
    """Decode the rows that are not done into the arrays."""
    rows, arrays = found.rows, open_arrays(folder, shapes)
    with contextlib.ExitStack() as stack:
        files = {path: stack.enter_context(open(path, "rb")) for path in dict.fromkeys(row.path for row in rows)}
        for number, row in enumerate(progress(rows[done:], "rows"), done + 1):
            files[row.path].seek(row.offset)
            columns = _columns(row, files[row.path].readline(LONGEST_ROW))
            boxes = _numbers(row, "boxes", columns.boxes, (found.shape[0], 4))
            features = _numbers(row, "features", columns.features, found.shape)
            for split, place in places[row.image]:
                arrays[f"{split}_boxes"][place] = boxes
                arrays[f"{split}_ims"][place] = features
            if number % ROWS_A_STEP == 0 or number == len(rows):
                note(folder, arrays, inputs, number)
