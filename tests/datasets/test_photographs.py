"""Photographs inside Parquet, or an archive beside a table: which files come of them, and what is refused."""

import json
from pathlib import PurePosixPath

import pyarrow
import pytest
from pyarrow import parquet

from tests.hub import SIZES, annotations, archive, captions, pictures, published
from uwml_lib.datasets.hub import ON_THE_HUB
from uwml_lib.datasets.raw.caption_files import read_captions
from uwml_lib.datasets.raw.photographs import Photograph, read_archive, read_parquet, write_photographs
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_lines

ARCHIVE, TABLE = ON_THE_HUB["flickr30k"].files
MADE = {split: pictures(split, size) for split, size in SIZES.items()}
ALL = {name: content for made in MADE.values() for name, content in made.items()}


def row(name: str, split: str, **changes: object) -> dict[str, object]:
    usual = {"raw": json.dumps(captions(0)), "sentids": [0], "split": split, "filename": name, "img_id": 0}
    return usual | changes


ROWS = [row("train_0.jpg", "train"), row("dev_0.jpg", "val"), row("test_0.jpg", "test")]


@pytest.fixture
def write(tmp_path):
    """Write what photographs there are; return what was said."""

    def call(photographs) -> list[str]:
        said: list[str] = []
        paths = (tmp_path / "part", tmp_path / "images", tmp_path / "captions.jsonl")
        write_photographs(photographs, *paths, {"train": 1, "dev": 1, "test": 1}, said.append)
        return said

    return call


@pytest.fixture
def archived(tmp_path):
    """Read an archive and a table, of the photographs unless told otherwise."""

    def call(members: dict[str, bytes] | bytes = ALL, rows: list[dict[str, object]] | bytes = ROWS):
        paths = [tmp_path / ARCHIVE, tmp_path / TABLE]
        for path, content, make in zip(paths, (members, rows), (archive, annotations), strict=True):
            path.write_bytes(content if isinstance(content, bytes) else make(content))
        return read_archive(paths)

    return call


@pytest.fixture
def tabled(tmp_path):
    """Read Parquet of rows, in each split the same."""

    def call(rows: list[dict[str, object]] | bytes, splits=("train", "validation", "test")):
        paths = [tmp_path / f"{split}-00000.parquet" for split in splits]
        for path in paths:
            if isinstance(rows, bytes):
                path.write_bytes(rows)
            else:
                parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return read_parquet(paths)

    return call


def parquet_row(path: str | None, **changes: object) -> dict[str, object]:
    columns = {f"caption_{number}": text for number, text in enumerate(captions(0))}
    return {"image": {"bytes": b"a picture", "path": path}, **columns} | changes


def refused(write, photographs) -> str:
    with pytest.raises(UWMLError) as error:
        write(photographs)
    return str(error.value)


# ------------------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize(("dataset", "read"), [("flickr8k", read_parquet), ("flickr30k", read_archive)])
def test_every_photograph_has_its_name_split_captions_and_bytes(tmp_path, dataset, read):
    paths = [tmp_path / PurePosixPath(name).name for name in ON_THE_HUB[dataset].files]
    for path, content in zip(paths, published(dataset).values(), strict=True):
        path.write_bytes(content)
    found = {photograph.name: photograph for photograph in read(paths)}
    assert {name: photograph.content for name, photograph in found.items()} == ALL
    names = {"train": "train", "dev": "validation" if dataset == "flickr8k" else "val", "test": "test"}
    for split, made in MADE.items():
        for number, name in enumerate(made):
            assert (found[name].split, found[name].captions) == (names[split], captions(number))


def test_what_is_written_is_read_as_captions_with_splits(write, archived, tmp_path):
    rows = [row("train_0.jpg", "train", raw=json.dumps([*captions(0), "a\n sixth"])), *ROWS[1:]]
    assert write(archived(rows=rows)) == ["photographs: 1 image of train, 1 image of dev, 1 image of test"]
    images = tmp_path / "images"
    assert {path.name: path.read_bytes() for path in images.iterdir()} == {
        r["filename"]: ALL[r["filename"]] for r in rows
    }
    assert not (tmp_path / "part").exists()
    _, found, splits = read_captions(tmp_path / "captions.jsonl", images, {path.name for path in images.iterdir()})
    assert found == {name: captions(0) + ["a sixth"] * (name == "train_0.jpg") for name in splits}
    assert splits == {"train_0.jpg": "train", "dev_0.jpg": "dev", "test_0.jpg": "test"}


def test_a_picture_without_a_name_gets_one(write, tabled, tmp_path):
    write(tabled([parquet_row(None), parquet_row("")]))
    names = {f"{split}-00000-0000{k}.jpg" for split in ("train", "validation", "test") for k in (0, 1)}
    assert {path.name for path in (tmp_path / "images").iterdir()} == names


def test_folders_before_a_name_are_left_out(write, archived, tmp_path):
    members = {"a/b/train_0.jpg": b"1", "dev_0.jpg": b"2", "c/test_0.jpg": b"3", "a/other.jpg": b"4"}
    write(archived(members))
    assert {path.name: path.read_bytes() for path in (tmp_path / "images").iterdir()} == {
        "train_0.jpg": b"1", "dev_0.jpg": b"2", "test_0.jpg": b"3",
    }  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["../evil.jpg", "/evil.jpg", "a/../../evil.jpg", "C:/evil.jpg", "a\\..\\evil.jpg"])
def test_paths_that_lead_out_are_refused(write, archived, tabled, tmp_path, name):
    message = refused(write, archived(ALL | {name: b"?"}))
    assert message.startswith(f"{tmp_path / ARCHIVE}: found {ascii(name)}, expected the name of a file, by a path that")
    assert f"row 0: found {ascii(name)}, expected the name of a file" in refused(write, tabled([parquet_row(name)]))
    assert not list(tmp_path.rglob("*evil*")) and not (tmp_path / "images").exists()


def test_pictures_that_are_not_in_the_archive_or_twice(write, archived, tmp_path):
    few = {name: content for name, content in ALL.items() if name != "dev_0.jpg"}
    line = f"{tmp_path / TABLE}: line 3"
    found = f"{tmp_path / ARCHIVE}: found 0 pictures called dev_0.jpg, expected one, for {line}"
    assert refused(write, archived(few)) == found
    assert "found 2 pictures called dev_0.jpg" in refused(write, archived(ALL | {"a/dev_0.jpg": b"?"}))


def test_names_that_stand_twice(write, archived, tmp_path):
    lines = [f"{tmp_path / TABLE}: line {number}" for number in (2, 5)]
    message = refused(write, archived(rows=[*ROWS, ROWS[0]]))
    assert message == f"{lines[0]} and {lines[1]} are both 'train_0.jpg', expected each once"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"raw": "['one']"}, "line 4: raw: not readable as JSON"),
        ({"raw": '"one"'}, "line 4: raw: found 'one', expected a list of captions"),
        ({"raw": '["one", "two", "three", "four"]'}, "line 4: found 4 captions of test_0.jpg, expected at least 5"),
        ({"raw": '["one", "two", "three", "four", ""]'}, "line 4: found '', expected a text of 1 to"),
        ({"split": "testing"}, "line 4: split: found 'testing', expected one of train, restval, val"),
        ({"split": "val"}, "splits: found 1 image of train, 2 images of dev, 0 images of test, expected some of each"),
    ],
)
def test_rows_of_the_table_that_say_something_else(write, archived, tmp_path, changes, words):
    assert words in refused(write, archived(rows=[*ROWS[:2], row("test_0.jpg", **{"split": "test", **changes})]))
    assert not (tmp_path / "images").exists() and not (tmp_path / "captions.jsonl").exists()


def test_a_split_without_a_file(write, tabled):
    message = refused(write, tabled([parquet_row(None)], splits=("train", "test")))
    assert message == "splits: found 1 image of train, 0 images of dev, 1 image of test, expected some of each"


def test_columns_that_are_not_there(write, archived, tabled, tmp_path):
    fewer = {name: value for name, value in parquet_row("a.jpg").items() if name not in ("caption_3", "caption_4")}
    found = "found the columns image, caption_0, caption_1, caption_2, expected also caption_3, caption_4"
    assert refused(write, tabled([fewer])) == f"{tmp_path}/train-00000.parquet: {found}"
    found = "found the columns raw, name, expected also filename, split"
    assert refused(write, archived(rows=b"raw,name\n")) == f"{tmp_path / TABLE}: {found}"
    assert "found the columns (none)" in refused(write, archived(rows=b""))


def test_cells_that_hold_something_else(write, tabled):
    assert "row 0: image: found 'a.jpg', expected bytes and a path" in refused(
        write, tabled([parquet_row("", image="a.jpg")])
    )
    empty = parquet_row("", image={"path": "a.jpg", "bytes": None})
    assert "row 0: picture: found nothing, expected the bytes of a file" in refused(write, tabled([empty]))
    assert "row 0: found nothing, expected a text" in refused(write, tabled([parquet_row("a.jpg", caption_4=None)]))


def test_damage_is_named_by_file(write, archived, tabled, tmp_path):
    again = "; remove it, and the same command fetches it again"
    whole = archive(ALL)
    start = whole.index(ALL["dev_0.jpg"])
    for damaged in (whole[:-100], whole[:start] + b"?" + whole[start + 1 :], b"?"):
        message = refused(write, archived(damaged))
        assert message.startswith(f"{tmp_path / ARCHIVE}: damaged (") and message.endswith(again)
    message = refused(write, archived(rows=b"\xff\xfe"))
    assert message.startswith(f"{tmp_path / TABLE}: damaged (") and message.endswith(again)

    parquet.write_table(pyarrow.Table.from_pylist([parquet_row("a.jpg")]), tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for damaged in (whole[:-10], whole[:4] + b"?" * 60 + whole[64:], b"?"):
        message = refused(write, tabled(damaged))
        assert message.startswith(f"{tmp_path}/train-00000.parquet: damaged (") and message.endswith(again)


def test_a_web_page_in_place_of_a_file(write, archived, tmp_path):
    assert refused(write, archived(b"<!doctype html>")).startswith(f"{tmp_path / ARCHIVE}: is a web page, not the file")


def test_an_encrypted_archive(write, archived, tmp_path):
    content = bytearray(archive(ALL))
    for start in (0, content.index(b"PK\x01\x02")):  # flags: in the local header, and in the list of members
        content[start + (6 if start == 0 else 8)] |= 1
    assert "damaged (File 'train_0.jpg' is encrypted" in refused(write, archived(bytes(content)))


def test_photographs_in_any_order_of_splits(write, tmp_path):
    shuffled = [("test", "c.jpg"), ("train", "a.jpg"), ("dev", "b.jpg"), ("train", "d.jpg")]
    said = write(Photograph("here", name, split, captions(0), b"?") for split, name in shuffled)
    assert said[0] == (
        "warning: expected 1 of train, 1 of dev, 1 of test: these are not the usual splits, so compare no numbers "
        "with others'"
    )
    names = [json.loads(line)["file_name"] for line in read_lines(tmp_path / "captions.jsonl") if line]
    assert names == ["c.jpg", "a.jpg", "b.jpg", "d.jpg"]
