"""Photographs as they are published, inside Parquet or an archive, to files and one caption file with their splits."""

import contextlib
import csv
import json
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from uwml_lib.datasets.raw.items import SPLITS, caption_line, expect_once, expect_value, images_of
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import atomic_path, check_is_file, parse_json, write_lines, writing
from uwml_lib.support.progress import Say, progress

CAPTIONS = 5
"""Captions that every photograph has at least."""
PARQUET_COLUMNS = ("image", *(f"caption_{number}" for number in range(CAPTIONS)))
TABLE_COLUMNS = ("filename", "split", "raw")
ROWS_AT_ONCE = 64
DAMAGES = (OSError, ValueError, LookupError, EOFError, RuntimeError, csv.Error, zipfile.BadZipFile, zlib.error)
"""What damaged archives, Parquet and tables make their readers raise."""


class Photograph(NamedTuple):
    """Where a photograph stands in what was published, and what is to be its name, split, captions and file."""

    where: str
    name: Any
    split: Any
    captions: Any
    content: Any


def write_photographs(
    photographs: Iterable[Photograph], growing: Path, images: Path, captions: Path, usual: Mapping[str, int], say: Say
) -> None:
    """Write a caption file, JSON Lines, and then, when all photographs are there, their folder `images`.

    growing: where photographs lie until then; one that an earlier call wrote is not written again. usual: split ->
    images that it should have. Raises UWMLError, naming the place, for what is no photograph with a split and captions.
    """
    places, counts, lines = dict[str, str](), Counter[str](), list[str]()
    for where, path, given, texts, content in progress(photographs, "photographs"):
        name = file_name(where, path)
        expect_once(places, repr(name), where)
        expect_value(given in list(SPLITS), f"{where}: split", given, f"one of {', '.join(SPLITS)}")
        found = [caption_line(where, text) for text in texts]
        expect(len(found) >= CAPTIONS, where, f"{len(found)} captions of {name}", f"at least {CAPTIONS}")
        expect_value(isinstance(content, bytes), f"{where}: picture", content, "the bytes of a file")
        if not (growing / name).exists():
            with atomic_path(growing / name) as temporary:
                temporary.write_bytes(content)
        counts[SPLITS[given]] += 1
        lines.append(json.dumps({"file_name": name, "split": SPLITS[given], "captions": found}))
    said = images_of({split: counts[split] for split in usual})
    expect(all(counts[split] for split in usual), "splits", said, "some of each")
    if counts != usual:
        expected = ", ".join(f"{count:,} of {split}" for split, count in usual.items())
        say(f"warning: expected {expected}: these are not the usual splits, so compare no numbers with others'")
    say(f"photographs: {said}")
    write_lines(captions, lines)
    with writing(images):
        os.replace(growing, images)


def file_name(where: str, path: Any) -> str:
    """Return the last part of a path; raises UWMLError for what is none, and for one that leads out of its folder."""
    parts = path.split("/") if isinstance(path, str) and path.isprintable() else [""]
    safe = parts[0] and parts[-1] and ".." not in parts and not {"\\", ":"} & set(path)
    expect_value(safe, where, path, "the name of a file, by a path that stays in its folder")
    return str(parts[-1])


def read_parquet(paths: list[Path]) -> Iterator[Photograph]:
    """Read files called SPLIT-*.parquet, some rows at a time: a picture, its bytes and path, and five captions a row.

    Raises UWMLError, naming the file, for other columns and for damage.
    """
    from pyarrow import parquet

    for path in paths:
        split = path.name.partition("-")[0]
        with _reading(path), parquet.ParquetFile(path, memory_map=True) as file:  # else all of it is read ahead
            _check_columns(path, file.schema_arrow.names, PARQUET_COLUMNS)
            batches = file.iter_batches(ROWS_AT_ONCE, columns=PARQUET_COLUMNS)
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows):
                where, image = f"{path}: row {number}", row["image"]
                expect_value(isinstance(image, dict), f"{where}: image", image, "bytes and a path")
                name = image.get("path") or f"{path.stem}-{number:05d}.jpg"
                yield Photograph(where, name, split, [row[key] for key in PARQUET_COLUMNS[1:]], image.get("bytes"))


def read_archive(paths: list[Path]) -> Iterator[Photograph]:
    """Read pictures of a zip archive, and of a table, CSV, their file names, splits, and captions as JSON.

    Pictures that the table does not name are left out. Raises UWMLError, naming the file, for paths that lead out of
    the archive, pictures that are not there, other columns and damage.
    """
    archive_path, table_path = paths
    with _reading(archive_path), zipfile.ZipFile(archive_path) as archive:
        members: dict[str, list[zipfile.ZipInfo]] = {}
        for member in archive.infolist():
            if not member.is_dir():
                members.setdefault(file_name(str(archive_path), member.filename), []).append(member)
        for photograph in _read_table(table_path):
            same = members.get(photograph.name, [])
            found = f"{len(same)} pictures called {photograph.name}"
            expect(len(same) == 1, archive_path, found, f"one, for {photograph.where}")
            yield photograph._replace(content=archive.read(same[0].filename))


def _read_table(path: Path) -> Iterator[Photograph]:
    with _reading(path), open(path, encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        _check_columns(path, table.fieldnames or [], TABLE_COLUMNS)
        for row in table:
            where = f"{path}: line {table.line_num}"
            captions = parse_json(f"{where}: raw", row["raw"] or "")
            expect_value(isinstance(captions, list), f"{where}: raw", captions, "a list of captions")
            yield Photograph(where, row["filename"], row["split"], captions, None)


def _check_columns(path: Path, names: Iterable[str], needed: Iterable[str]) -> None:
    lacking = [name for name in needed if name not in names]
    expect(not lacking, path, f"the columns {', '.join(names) or '(none)'}", f"also {', '.join(lacking)}")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a damaged file makes its reader raise into a sentence that names it."""
    check_is_file(path)
    try:
        yield
    except UWMLError:
        raise
    except DAMAGES as error:
        said = " ".join(str(error).split())[:200]
        raise UWMLError(f"{path}: damaged ({said}); remove it, and the same command fetches it again") from error
