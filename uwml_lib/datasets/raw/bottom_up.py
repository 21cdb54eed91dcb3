"""Bottom-up attention's TSV files to the SCAN layout: `{split}_ims.npy` and `{split}_boxes.npy`, row by row."""

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from uwml_lib.datasets.raw.growing import JOURNAL, Growing, refuse_finished
from uwml_lib.datasets.raw.items import expect_value, listed, listing
from uwml_lib.support.errors import UWMLError, expect
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
    """A row and where it is, in words; boxes and features are base64 of little-endian float32."""

    where: str
    image: str
    num_boxes: int
    boxes: bytes
    features: bytes


def write_features(folder: Path, tsvs: Sequence[Path], /, boxes: int = 36, say: Say = say) -> None:
    """Write the features and boxes of every split, from bottom-up attention's TSV files. Called again it goes on.

    They go to `{split}_ims.npy` (n, boxes, dim) and `{split}_boxes.npy` (n, boxes, 4), float32, in the order of
    `{split}_ids.txt`. Boxes stay as the TSV has them, in pixels. The files are read twice, to find every wanted image
    and to decode its row, so that only damaged base64 and numbers that are not finite are found late. An image of
    several splits is written to each; rows of other images are passed over. One row at a time is in memory.

    Args:
        folder: The data set's folder, with the ids that `uwml captions` writes.
        tsvs: The TSV files; their rows may be in any order.
        boxes: Boxes that every image has.

    Raises:
        UWMLError: The file and line are named, or the images listed.
    """
    expect(tsvs, "TSV", "no file", "at least one")
    expect(boxes > 0, "boxes", boxes, "at least 1")
    for path in tsvs:
        check_is_file(path)
        expect(path.stat().st_size, path, "an empty file", f"rows of {', '.join(COLUMNS)}")
    places = _read_places(folder)
    counts = Counter(split for rows in places.values() for split, _ in rows)
    source = ", ".join(path.name for path in tsvs)
    with lock(folder, say):
        if not (folder / JOURNAL).exists():
            refuse_finished(folder, counts)
        size = sum(path.stat().st_size for path in tsvs)
        say(f"1/2 looking for {len(places):,} images in {source}, {size / 1e9:.1f} GB")
        dim, digest = _find(tsvs, source, places, boxes, say)
        arrays = Growing(folder, counts, (boxes, dim), [digest, boxes, places], len(places))
        before = f", {arrays.done:,} of which were written before" if arrays.done else ""
        say(f"2/2 writing {len(places):,} rows of {boxes} boxes x {dim:,} numbers{before}")
        rows = islice((row for row in _rows(tsvs) if row.image in places), arrays.done, None)
        arrays.fill(((places[row.image], *_decoded(row, boxes, dim)) for row in rows), ROWS_A_STEP, say)


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
    files = ", ".join(f"{split}_ids.txt" for split in SPLITS)
    expect(places, folder, f"none of {files}", "the ids that `uwml captions` writes")
    return places


def _find(tsvs: Sequence[Path], source: str, places: Places, boxes: int, say: Say) -> tuple[int, str]:
    """Return the numbers a box of every wanted image, and a digest of the files.

    Raises UWMLError listing the images that have no row, several, or one of another shape.
    """
    times: Counter[str] = Counter()
    wrong: dict[str, int] = {}
    others, dim, digest = 0, 0, hashlib.sha256()
    for row in _rows(tsvs, digest):
        if row.image not in places:
            others += 1
            continue
        times[row.image] += 1
        if row.num_boxes != boxes:
            wrong[row.image] = row.num_boxes
            continue
        dim = dim or max(1, len(row.features) * 3 // 4 // (4 * boxes))
        for name, size in (("boxes", 4), ("features", dim)):
            found, expected = len(getattr(row, name)), 4 * math.ceil(4 * boxes * size / 3)
            shape = f"{boxes} boxes x {size:,} numbers in float32, as in every row"
            letters = f"{found:,} letters of base64"
            expect(found == expected, f"{row.where}: {name}", letters, f"{expected:,} for {shape}")
    counts = ", ".join(map(str, sorted(set(wrong.values()))[:10]))
    problems = {
        "are missing": [image for image in places if image not in times],
        "have several rows, expected one": [image for image, count in times.items() if count > 1],
        f"have {counts} boxes, expected {boxes} (--boxes takes another number)": list(wrong),
    }
    if any(problems.values()):
        sentences = (listing(source, ids, len(places), "image", what) for what, ids in problems.items() if ids)
        raise UWMLError("\n".join(sentences))
    if others:
        say(f"  rows left out, for no split has their image: {others:,}")
    return dim, digest.hexdigest()


def _rows(tsvs: Sequence[Path], digest: Any = None) -> Iterator[Row]:
    """Yield every row; digest: a hash that takes in every line."""
    for path in tsvs:
        with open(path, "rb", buffering=2**20) as file:
            lines = iter(partial(file.readline, LONGEST_ROW), b"")
            for number, line in enumerate(progress(lines, f"{path.name}: rows"), 1):
                where = f"{path}: line {number}"
                expect(len(line) < LONGEST_ROW, where, f"{LONGEST_ROW:,} bytes and no end", "a row of a TSV file")
                if digest:
                    digest.update(line)
                yield _row(where, line)


def _row(where: str, line: bytes) -> Row:
    words = line.rstrip(b"\r\n").split(b"\t")
    expected = f"{len(COLUMNS)}, between tabs: {', '.join(COLUMNS)}"
    expect(len(words) == len(COLUMNS), where, f"{len(words)} columns", expected)
    try:
        image = words[0].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UWMLError(f"{where}: image_id: not readable as UTF-8 text ({error})") from error
    for name, word in zip(COLUMNS[1:4], words[1:4], strict=True):
        expect_value(word.isdigit() and len(word) < 10, f"{where}: {name}", word, "a whole number")
    return Row(f"{where}, image {image}", image, int(words[3]), words[4], words[5])


def _decoded(row: Row, boxes: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (boxes, dim) and the boxes (boxes, 4) of a row, float32."""
    found = {}
    for name, size in (("features", dim), ("boxes", 4)):
        try:
            content = base64.b64decode(getattr(row, name), validate=True)
            found[name] = np.frombuffer(content, "<f4").reshape(boxes, size)
        except ValueError as error:
            raise UWMLError(f"{row.where}: {name}: not readable as base64 of float32 ({error})") from error
        expect(np.isfinite(found[name]).all(), f"{row.where}: {name}", "NaN or infinity", "finite numbers")
    return found["features"], found["boxes"]
