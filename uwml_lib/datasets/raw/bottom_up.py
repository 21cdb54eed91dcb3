"""Bottom-up attention's files to the SCAN layout, row by row: its TSV, its TSV of ten columns, or `.npz` a picture."""

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from uwml_lib.datasets.raw.growing import JOURNAL, Growing, refuse_finished
from uwml_lib.datasets.raw.items import expect_value, listed, listing, plain_id
from uwml_lib.datasets.raw.npz_files import npz_files, read_npz
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import check_is_file, lock, read_lines, sha256_of
from uwml_lib.support.progress import Say, counted, progress, say

SPLITS = ("train", "dev", "test", "testall")
COLUMNS = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")
OBJECTS = ("objects_id", "objects_conf", "attrs_id", "attrs_conf")
TEN_COLUMNS = ("img_id", "img_h", "img_w", *OBJECTS, "num_boxes", "boxes", "features")
"""Those of py-bottom-up-attention; what it says of objects is passed over."""
WHOLE = ("image_w", "image_h", "img_h", "img_w", "num_boxes")
LONGEST_ROW = 2**26
"""Bytes; a longer line is no row (36 boxes of 2048 numbers take 400 KB) and would fill the memory."""
ROWS_A_STEP = 1000
"""Rows between two notes of how far the work is: so many, at most, are decoded again after an interruption."""
OTHERS_SHOWN = 3
"""Ids that are shown of rows of other images, where images are missing."""

Places = dict[str, list[tuple[str, int]]]
"""Image -> the splits it is in, and its row in each."""


class Row(NamedTuple):
    """A row and where it is, in words; boxes and features are base64 of little-endian float32, or arrays of `.npz`."""

    where: str
    image: str
    num_boxes: int
    boxes: bytes | np.ndarray
    features: bytes | np.ndarray


def write_features(folder: Path, files: Sequence[Path], /, boxes: int = 36, say: Say = say) -> None:
    """Write the features and boxes of every split, from files of bottom-up attention. Run it again to continue.

    They go to `{split}_ims.npy` (n, boxes, dim) and `{split}_boxes.npy` (n, boxes, 4), float32, in the order of
    `{split}_ids.txt`. Boxes stay as they are, in pixels. The files are read twice, to find every wanted image and
    to decode its row, so that only damaged base64 and numbers that are not finite are found late. An image of
    several splits is written to each; rows of other images are passed over. One row at a time is in memory.

    Args:
        folder: The data set's folder, with the ids that `uwml captions` writes.
        files: TSV files of six or ten columns, or folders with one .npz a picture; rows may be in any order.
        boxes: How many boxes every image has; 0: as many as each has. The models vse, vse_infinity, dual_encoding and
            frozen read unequal numbers, with `{split}_offsets.npy`.

    Raises:
        UWMLError: The file and line are named, or the images listed.
    """
    expect(files, "TSV", "no file", "at least one")
    expect(boxes >= 0, "boxes", boxes, "at least 1, or 0 for as many as each image has")
    size = 0
    for file in (file for path in files for file in npz_files(path) or [path]):
        check_is_file(file)
        expect(file.stat().st_size, file, "an empty file", f"rows of {', '.join(COLUMNS)}")
        size += file.stat().st_size
    places = _read_places(folder)
    counts = Counter(split for rows in places.values() for split, _ in rows)
    source = ", ".join(path.name for path in files)
    with lock(folder, say):
        if not (folder / JOURNAL).exists():
            refuse_finished(folder, counts)
        say(f"1/2 looking for {len(places):,} images in {source}, {size / 1e9:.1f} GB")
        known = _forms(places)
        boxes_of, dim, digest = _find(files, source, places, known, boxes, say)
        fewest, most = min(boxes_of.values()), max(boxes_of.values())
        offsets = _offsets(places, boxes_of) if fewest < most else None
        arrays = Growing(folder, counts, (most, dim), [digest, boxes, places], len(places), offsets)
        number = f"{fewest} to {most}" if offsets else f"{most}"
        say(f"2/2 writing {len(places):,} rows of {number} boxes x {dim:,} numbers{arrays.before}")
        rows = islice((row for row in _rows(files) if known(row.image)), arrays.done, None)
        arrays.fill(((places[known(row.image)], *_decoded(row, dim)) for row in rows), ROWS_A_STEP, say)


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


def _forms(places: Places) -> Callable[[str], str]:
    """Return what turns a row's id into that of the wanted image it means: the same, the only one like it, or ""."""
    plain = Counter(map(plain_id, places))
    meant = {plain_id(image): image for image in places if plain[plain_id(image)] == 1}
    return lambda image: image if image in places else meant.get(plain_id(image), "")


def _offsets(places: Places, boxes_of: dict[str, int]) -> dict[str, np.ndarray]:
    """Return where each image's boxes begin in every split, (n + 1,) int64."""
    counts: dict[str, dict[int, int]] = {}
    for image, rows in places.items():
        for split, row in rows:
            counts.setdefault(split, {})[row] = boxes_of[image]
    return {split: np.cumsum([0, *(of[row] for row in range(len(of)))], dtype=np.int64) for split, of in counts.items()}


def _find(
    files: Sequence[Path], source: str, places: Places, known: Callable[[str], str], boxes: int, say: Say
) -> tuple[dict[str, int], int, str]:
    """Return the boxes of every wanted image, the numbers a box, and a digest of the files.

    Raises UWMLError listing the images that have no row, several, or one of another shape.
    """
    times: Counter[str] = Counter()
    boxes_of: dict[str, int] = {}
    others, other_ids, other_forms, dim, digest = 0, list[str](), dict[str, str](), 0, hashlib.sha256()
    for row in _rows(files, digest):
        if not (image := known(row.image)):
            others += 1
            other_ids += [row.image] if len(other_ids) < OTHERS_SHOWN else []
            continue
        if image != row.image:
            other_forms[image] = row.image
        times[image] += 1
        boxes_of[image] = row.num_boxes
        if row.num_boxes == (boxes or row.num_boxes):
            dim = dim or _dim(row)
            _check_size(row, dim)
    wrong = [image for image, number in boxes_of.items() if number != (boxes or number)]
    found = ", ".join(map(str, sorted({boxes_of[image] for image in wrong})[:10]))
    problems = {
        "are missing": [image for image in places if image not in times],
        "have several rows, expected one": [image for image, count in times.items() if count > 1],
        f"have {found} boxes, expected {boxes} (--boxes takes another number, 0 as many as each has)": wrong,
    }
    if sentences := [listing(source, ids, len(places), "image", what) for what, ids in problems.items() if ids]:
        if others and len(times) < len(places):
            sentences.append(f"{source}: {counted(others, 'row')} of other images, such as {', '.join(other_ids)}")
        raise UWMLError("\n".join(sentences))
    for image, form in islice(other_forms.items(), 1):
        say(f"  ids of another form: {len(other_forms):,}, such as {form} for {image}")
    if others:
        say(f"  rows left out, for no split has their image: {others:,}")
    return boxes_of, dim, digest.hexdigest()


def _dim(row: Row) -> int:
    """Numbers a box, of a row that is taken to be whole."""
    if isinstance(row.features, np.ndarray):
        return row.features.shape[1]
    return max(1, len(row.features) * 3 // 4 // (4 * max(1, row.num_boxes)))


def _check_size(row: Row, dim: int) -> None:
    expect(row.num_boxes > 0, row.where, "no boxes", "at least one")
    for name, size in (("boxes", 4), ("features", dim)):
        shape = f"{row.num_boxes} boxes x {size:,} numbers"
        if isinstance(content := getattr(row, name), np.ndarray):
            fits, found, expected = content.shape == (row.num_boxes, size), content.shape, f"{shape}, as in every file"
        else:
            letters = 4 * math.ceil(4 * row.num_boxes * size / 3)
            fits, found = len(content) == letters, f"{len(content):,} letters of base64"
            expected = f"{letters:,} for {shape} in float32, as in every row"
        expect(fits, f"{row.where}: {name}", found, expected)


def _rows(files: Sequence[Path], digest: Any = None) -> Iterator[Row]:
    """Yield every row; digest: a hash that takes in every line, or file of one picture."""
    for path in files:
        if archives := npz_files(path):
            for archive in progress(archives, f"{path.name}: files"):
                if digest:
                    digest.update(f"{archive.name} {sha256_of(archive)}".encode())
                features, of_boxes = read_npz(archive)
                yield Row(str(archive), archive.stem, len(of_boxes), of_boxes, features)
            continue
        with open(path, "rb", buffering=2**20) as file:
            lines = iter(partial(file.readline, LONGEST_ROW), b"")
            for number, line in enumerate(progress(lines, f"{path.name}: rows"), 1):
                where = f"{path}: line {number}"
                expect(len(line) < LONGEST_ROW, where, f"{LONGEST_ROW:,} bytes and no end", "a row of a TSV file")
                if digest:
                    digest.update(line)
                yield _row(where, line)


def _row(where: str, line: bytes) -> Row:
    words = [_bare(word) for word in line.rstrip(b"\r\n").split(b"\t")]
    columns: Sequence[str] = next((names for names in (COLUMNS, TEN_COLUMNS) if len(names) == len(words)), ())
    expected = ", or ".join(f"{len(names)}, between tabs: {', '.join(names)}" for names in (COLUMNS, TEN_COLUMNS))
    expect(columns, where, counted(len(words), "column"), expected)
    values = dict(zip(columns, words, strict=True))
    try:
        image = words[0].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UWMLError(f"{where}: {columns[0]}: not readable as UTF-8 text ({error})") from error
    for name in (name for name in WHOLE if name in values):
        word = values[name]
        expect_value(word.isdigit() and len(word) < 10, f"{where}: {name}", word, "a whole number")
    return Row(f"{where}, image {image}", image, int(values["num_boxes"]), values["boxes"], values["features"])


def _bare(word: bytes) -> bytes:
    """Take the b'...' off a field that Python 3 wrote as the words for bytes; base64 holds no quotes."""
    return word[2:-1] if word[:2] in (b"b'", b'b"') and word[-1:] == word[1:2] and len(word) > 2 else word


def _decoded(row: Row, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (boxes, dim) and the boxes (boxes, 4) of a row, float32."""
    found = {}
    for name, size in (("features", dim), ("boxes", 4)):
        content = getattr(row, name)
        try:
            if isinstance(content, bytes):
                content = np.frombuffer(base64.b64decode(content, validate=True), "<f4")
            found[name] = content.reshape(row.num_boxes, size)
        except ValueError as error:
            raise UWMLError(f"{row.where}: {name}: not readable as base64 of float32 ({error})") from error
        expect(np.isfinite(found[name]).all(), f"{row.where}: {name}", "NaN or infinity", "finite numbers")
    return found["features"], found["boxes"]
