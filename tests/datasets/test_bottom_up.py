"""TSV files of bottom-up attention: what becomes of them, what is refused, and that a kill costs nothing."""

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.raw import tsv_row
from uwml_lib.cli import main
from uwml_lib.datasets import PrecomputedDataset
from uwml_lib.datasets.raw import bottom_up, growing, items
from uwml_lib.datasets.raw.bottom_up import write_features
from uwml_lib.datasets.raw.growing import JOURNAL
from uwml_lib.models import MODELS
from uwml_lib.support.errors import UWMLError

GOLDEN = Path(__file__).parents[1] / "golden/bottom_up"
BOXES, DIM = 3, 5
ARRAYS = ("train_ims", "train_boxes", "dev_ims", "dev_boxes")


def boxes_of(number: int) -> np.ndarray:
    return np.arange(4 * BOXES, dtype=np.float32).reshape(BOXES, 4) + 100 * number


def features_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(BOXES, DIM)).astype(np.float32)


def row(number: int) -> bytes:
    return tsv_row(f"{number:04d}", boxes_of(number), features_of(number))


def rows(numbers) -> bytes:
    return b"".join(map(row, numbers))


def write_ids(folder: Path, **splits) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, numbers in splits.items():
        (folder / f"{split}_ids.txt").write_text("".join(f"{number:04d}\n" for number in numbers))
    return folder


@pytest.fixture
def folder(tmp_path):
    """Six images to train on, two in dev."""
    return write_ids(tmp_path / "data", train=range(6), dev=(6, 7))


@pytest.fixture
def tsv(tmp_path):
    path = tmp_path / "features.tsv"
    path.write_bytes(rows((7, 3, 0, 99, 6, 1, 5, 2, 4)))
    return path


def check(folder: Path, split: str, numbers) -> None:
    """Compare a split with what was written, bytes of the files included."""
    for kind, of in (("ims", features_of), ("boxes", boxes_of)):
        expected = np.stack([of(number) for number in numbers])
        np.save(folder / "expected.npy", expected)
        assert (folder / f"{split}_{kind}.npy").read_bytes() == (folder / "expected.npy").read_bytes()
        (folder / "expected.npy").unlink()


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


# ------------------------------------------------------------------------------------------------ what is written


def test_recorded_arrays(tmp_path):
    shutil.copy(GOLDEN / "image_ids.txt", tmp_path / "test_ids.txt")
    assert main(["features", str(tmp_path), str(GOLDEN / "features.tsv"), "--boxes", "4"]) == 0
    expected = np.load(GOLDEN / "expected.npz")
    for name, kind in (("features", "ims"), ("boxes", "boxes")):
        found = np.load(tmp_path / f"test_{kind}.npy")
        assert found.dtype == np.float32
        assert np.array_equal(found, expected[name])


def test_rows_in_any_order(folder, tsv, capsys):
    write_features(folder, [tsv], BOXES)
    check(folder, "train", range(6))
    check(folder, "dev", (6, 7))
    assert hidden(folder) == [JOURNAL]
    out = capsys.readouterr().out
    assert "1/2 looking for 8 images in features.tsv" in out
    assert "rows left out, for no split has their image: 1\n" in out
    assert "2/2 writing 8 rows of 3 boxes x 5 numbers\n" in out
    assert f"{folder}/train_ims.npy: 6 x 3 x 5\n" in out


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_order_any_files_any_splits(tmp_path_factory, data):
    """Rows over several files, images in several splits, rows that nobody wants."""
    folder = tmp_path_factory.mktemp("any")
    wanted = {
        split: data.draw(st.lists(st.integers(0, 9), unique=True, max_size=6), split) for split in bottom_up.SPLITS
    }
    wanted = {split: numbers for split, numbers in wanted.items() if numbers} or {"dev": [3]}
    order = data.draw(st.permutations(range(12)), "order")
    cut = data.draw(st.integers(1, 11), "cut")
    tsvs = [folder / "a.tsv", folder / "b.tsv"]
    tsvs[0].write_bytes(rows(order[:cut]))
    tsvs[1].write_bytes(rows(order[cut:]).replace(b"\n", b"\r\n")[:-2])  # the last line end may be missing
    write_features(write_ids(folder / "data", **wanted), tsvs, BOXES, say=lambda line: None)
    for split, numbers in wanted.items():
        check(folder / "data", split, numbers)
    assert {path.name for path in (folder / "data").glob("*.npy")} == {
        f"{split}_{kind}.npy" for split in wanted for kind in ("ims", "boxes")
    }


def test_the_data_set_reads_them(folder, tsv):
    write_features(folder, [tsv], BOXES)
    (folder / "dev_caps.txt").write_text("a\nb\nc\nd\n")
    dataset = PrecomputedDataset(folder, "dev")
    assert dataset.ids == ["0006", "0007"]
    assert np.array_equal(dataset.images(0, 2).numpy(), np.stack([features_of(6), features_of(7)]))
    assert np.array_equal(dataset.optional_array("boxes", 3)[1], boxes_of(7))


def test_again_it_does_nothing(folder, tsv, capsys):
    write_features(folder, [tsv], BOXES)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    capsys.readouterr()
    write_features(folder, [tsv], BOXES)
    assert "8 rows of 3 boxes x 5 numbers; 8 images were done before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


# ------------------------------------------------------------------------------------------------ other forms


def wrapped(line: bytes) -> bytes:
    """A row whose fields Python 3 wrote as the words for bytes, as str(b"...") gives."""
    return b"\t".join(b"b'%s'" % word for word in line.rstrip(b"\n").split(b"\t")) + b"\n"


def ten_columns(line: bytes) -> bytes:
    """A row as of py-bottom-up-attention: the height before the width, and what it says of objects."""
    image, width, height, count, *arrays = line.rstrip(b"\n").split(b"\t")
    objects = b"AQAAAAAAAAACAAAAAAAAAAMAAAAAAAAA", b"AACAPwAAgD8AAIA/"
    return b"\t".join((image, height, width, *objects, *objects, count, *arrays)) + b"\n"


@pytest.mark.parametrize("form", [wrapped, ten_columns, lambda line: wrapped(ten_columns(line))])
def test_rows_of_other_forms(folder, tsv, form):
    tsv.write_bytes(b"".join(form(row(number)) for number in (7, 3, 0, 99, 6, 1, 5, 2, 4)))
    write_features(folder, [tsv], BOXES)
    check(folder, "train", range(6))
    check(folder, "dev", (6, 7))


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ("1000 7", "1000.jpg 7.JPG"),
        ("1000 7", "COCO_val2014_000000001000 COCO_train2014_000000000007"),
        ("1000 7", "val2014/COCO_val2014_000000001000.jpg train2014/COCO_train2014_000000000007.jpg"),
        ("1000 7", "000000001000.jpg.npz 000000000007.jpg.npz"),
        ("1000.jpg 7.jpg", "1000 7"),
        ("a.b 0012", "a.b.png 0012.jpeg"),
        ("a/1.jpg b/1.jpg", "a/1.jpg b/1.jpg"),
    ],
)
def test_ids_of_another_form_are_understood(tmp_path, capsys, wanted, ids):
    (tmp_path / "dev_ids.txt").write_text(wanted.replace(" ", "\n") + "\n")
    path = tmp_path / "features.tsv"
    path.write_bytes(b"".join(tsv_row(x, boxes_of(n), features_of(n)) for n, x in reversed([*enumerate(ids.split())])))
    write_features(tmp_path, [path], BOXES)
    check(tmp_path, "dev", (0, 1))
    said = f"ids of another form: 2, such as {ids.split()[1]} for {wanted.split()[1]}\n"
    assert (said in capsys.readouterr().out) == (ids != wanted)


@pytest.mark.parametrize(
    ("wanted", "ids", "words"),
    [
        (
            "a/1.jpg b/1.jpg",
            "a/1.jpg 1",
            "1 of the 2 images are missing: b/1.jpg\n.*: 1 row of other images, such as 1$",
        ),
        ("12 7", "0012 7", "1 of the 2 images are missing: 12\n.*: 1 row of other images, such as 0012$"),
        ("1000 7", "1000 7 1000.jpg", "1 of the 2 images have several rows, expected one: 1000$"),
        ("1000 7", "x1000 x7 y z", "are missing: 1000, 7\n.*: 4 rows of other images, such as x1000, x7, y$"),
    ],
)
def test_ids_that_are_not_plainly_the_same_are_shown(tmp_path, wanted, ids, words):
    (tmp_path / "dev_ids.txt").write_text(wanted.replace(" ", "\n") + "\n")
    path = tmp_path / "features.tsv"
    path.write_bytes(b"".join(tsv_row(x, boxes_of(n), features_of(n)) for n, x in enumerate(ids.split())))
    refused(words, tmp_path, path)


def adaptive(number: int) -> tuple[np.ndarray, np.ndarray]:
    """One to three boxes, and their features."""
    n = number % BOXES + 1
    return boxes_of(number)[:n], features_of(number)[:n]


def check_adaptive(folder: Path, split: str, numbers) -> None:
    dataset = PrecomputedDataset(folder, split, caption_style="text")
    for position, number in enumerate(numbers):
        boxes, features = adaptive(number)
        assert np.array_equal(dataset.images(position, position + 1).numpy()[0], features)
    assert np.array_equal(dataset.optional_array("boxes", 2), np.concatenate([adaptive(x)[0] for x in numbers]))
    assert np.load(folder / f"{split}_offsets.npy").dtype == np.int64


@pytest.fixture
def captions(folder):
    for split, count in (("train", 6), ("dev", 2)):
        (folder / f"{split}_caps.txt").write_text("a dog runs .\n" * count)


@pytest.fixture
def adaptive_tsv(tsv, captions):
    tsv.write_bytes(b"".join(tsv_row(f"{n:04d}", *adaptive(n)) for n in (7, 3, 0, 99, 6, 1, 5, 2, 4)))
    return tsv


def test_as_many_boxes_as_each_image_has(folder, adaptive_tsv, capsys):
    write_features(folder, [adaptive_tsv], 0)
    check_adaptive(folder, "train", range(6))
    check_adaptive(folder, "dev", (6, 7))
    out = capsys.readouterr().out
    assert "2/2 writing 8 rows of 1 to 3 boxes x 5 numbers\n" in out
    assert f"{folder}/train_ims.npy: 12 x 5\n" in out
    refused("train_offsets.npy: is there already; move it away", folder, with_other_order(adaptive_tsv), boxes=0)


def with_other_order(tsv: Path) -> Path:
    tsv.write_bytes(b"".join(reversed(tsv.read_bytes().splitlines(keepends=True))))
    return tsv


def test_equal_numbers_need_no_offsets(folder, tsv):
    write_features(folder, [tsv], 0)
    check(folder, "train", range(6))
    assert not list(folder.glob("*offsets*"))


def test_an_image_without_boxes_is_named(folder, adaptive_tsv):
    adaptive_tsv.write_bytes(adaptive_tsv.read_bytes().replace(b"0003\t640\t480\t1\t", b"0003\t640\t480\t0\t"))
    refused("line 2, image 0003: found no boxes, expected at least one", folder, adaptive_tsv, boxes=0)


def test_the_help_names_the_models_that_read_unequal_numbers():
    names = [name for name, model in MODELS.items() if model.varying]
    (listed,) = re.findall(r"The models (.+) read unequal numbers", " ".join(write_features.__doc__.split()))
    assert set(names) == set(listed.replace(" and ", ", ").split(", "))


@pytest.fixture
def archives(tmp_path, captions) -> Path:
    """One .npz a picture as bottom-up-attention.pytorch writes it, every other with its features turned."""
    folder = tmp_path / "npz"
    folder.mkdir()
    for number in (*range(8), 99):
        boxes, features = adaptive(number)
        write_npz(folder, number, x=features.T if number % 2 else features, bbox=boxes)
    return folder


def write_npz(folder: Path, number: int, **arrays) -> None:
    sizes = {"num_bbox": len(arrays["bbox"]), "image_h": 480, "image_w": 640, "info": {"objects_id": [1]}}
    np.savez(folder / f"{number:04d}.jpg.npz", **{**sizes, **arrays})


def test_an_npz_a_picture(folder, archives, capsys):
    assert main(["features", str(folder), str(archives), "--boxes", "0"]) == 0
    check_adaptive(folder, "train", range(6))
    check_adaptive(folder, "dev", (6, 7))
    assert "ids of another form: 8, such as 0000.jpg for 0000\n" in capsys.readouterr().out


def test_npz_and_tsv_go_together(folder, tsv, archives):
    for number in range(4):
        write_npz(archives, number, x=features_of(number), bbox=boxes_of(number))
    tsv.write_bytes(rows((7, 6, 5, 4)))
    write_features(folder, [tsv, *(archives / f"{number:04d}.jpg.npz" for number in range(4))], BOXES)
    check(folder, "train", range(6))
    check(folder, "dev", (6, 7))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.ones((4, 6))}, r"x: found \(4, 6\), expected 3 boxes x another number, or the other way round"),
        ({"x": np.ones((3, 3))}, r"x: found \(3, 3\), expected 3 boxes x another number"),
        ({"x": np.ones((3, 5, 1))}, r"x: found \(3, 5, 1\), expected 3 boxes"),
        ({"x": np.ones((3, 4))}, r"features: found \(3, 4\), expected 3 boxes x 5 numbers, as in every file"),
        ({"bbox": np.ones((3, 5))}, r"bbox: found \(3, 5\), expected \(3, 4\), at least one, by num_bbox"),
        ({"num_bbox": 2}, r"bbox: found \(3, 4\), expected \(2, 4\)"),
        (
            {"x": np.array([[None]])},
            r"not readable as .npz with x and bbox \(x, bbox or num_bbox is no array of numbers",
        ),
        ({"x": np.full((3, 5), "a")}, "not readable as .npz with x and bbox"),
    ],
)
def test_npz_of_another_shape(folder, archives, arrays, words):
    write_npz(archives, 2, **{"x": features_of(2), "bbox": boxes_of(2), **arrays})
    assert refused(words, folder, archives, boxes=0).startswith(f"{archives / '0002.jpg.npz'}: ")


@pytest.mark.parametrize("content", [b"", b"hello world", b"PK\x03\x04 cut short", b"\x93NUMPY"])
def test_what_is_no_npz(folder, archives, content):
    (archives / "0002.jpg.npz").write_bytes(content)
    words = refused(
        "0002.jpg.npz: found (no zip archive, expected .npz with x|an empty file)", folder, archives, boxes=0
    )
    assert "pickle" not in words


def test_an_npz_without_its_boxes(folder, archives):
    np.savez(archives / "0002.jpg.npz", x=features_of(2))
    refused("0002.jpg.npz: not readable as .npz with x and bbox .*bbox is not a file in the archive", folder, archives)


# ------------------------------------------------------------------------------------------------ what is refused


def refused(words: str, folder: Path, *tsvs: Path, boxes: int = BOXES) -> str:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UWMLError, match=words) as error:
        write_features(folder, tsvs, boxes)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    return str(error.value)


def test_missing_repeated_and_other_box_counts_are_listed_together(folder, tsv):
    few = tsv_row("0005", boxes_of(5)[:2], features_of(5)[:2])
    other = tsv.with_name("other.tsv")
    tsv.write_bytes(rows((7, 3, 0, 99, 99)) + few)
    other.write_bytes(rows((4, 3, 7, 6)))
    sentences = refused("missing", folder, tsv, other).splitlines()
    assert sentences == [
        "features.tsv, other.tsv: 2 of the 8 images are missing: 0001, 0002",
        "features.tsv, other.tsv: 2 of the 8 images have several rows, expected one: 0007, 0003",
        "features.tsv, other.tsv: 1 of the 8 images have 2 boxes, expected 3 (--boxes takes another number, 0 as many "
        "as each has): 0005",
        "features.tsv, other.tsv: 2 rows of other images, such as 0099, 0099",
    ]


def test_an_equal_row_is_one_too_many_as_well(folder, tsv):
    tsv.write_bytes(rows((*range(8), 2)))
    refused("1 of the 8 images have several rows, expected one: 0002$", folder, tsv)


def test_the_box_count_is_36_unless_said(folder, tsv, capsys):
    assert main(["features", str(folder), str(tsv)]) == 1
    assert (
        "8 of the 8 images have 3 boxes, expected 36 (--boxes takes another number, 0 as many as each has): 0007"
        in capsys.readouterr().err
    )


def test_long_lists_are_cut(tmp_path, tsv, monkeypatch):
    monkeypatch.setattr(items, "IDS_SHOWN", 2)
    refused(
        "3 of the 5 images are missing: 0100, 0101 and 1 more\n.*: 7 rows of other images, such as 0007, 0003, 0099$",
        write_ids(tmp_path / "x", dev=(0, 1, 100, 101, 102)),
        tsv,
    )


ROW = row(0).rstrip(b"\n").split(b"\t")


def with_column(number: int, content: bytes) -> bytes:
    return b"\t".join((*ROW[:number], content, *ROW[number + 1 :])) + b"\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"\n", "line 2: found 1 column, expected 6, between tabs: image_id, image_w"),
        (row(0).replace(b"\t", b","), "line 2: found 1 column"),
        (row(0)[:-1] + b"\tmore\n", "line 2: found 7 columns"),
        (with_column(0, b"\xff0"), "line 2: image_id: not readable as UTF-8 text"),
        (with_column(1, b"wide"), "line 2: image_w: found b'wide', expected a whole number"),
        (with_column(3, b"-3"), "line 2: num_boxes: found b'-3', expected a whole number"),
        (with_column(3, b"1" * 5000), "line 2: num_boxes: found b'1"),
        (
            with_column(4, ROW[4][:-4]),
            "line 2, image 0000: boxes: found 60 letters of base64, expected 64 for 3 boxes x 4 numbers",
        ),
        (with_column(5, b""), "line 2, image 0000: features: found 0 letters of base64, expected 80"),
        (with_column(5, ROW[5] + b"AAAA"), "features: found 84 letters of base64, expected 80 for 3 boxes x 5 numbers"),
        (with_column(5, ROW[5][:-1]), "features: found 79 letters of base64"),
        (b"\t".join(ROW[:5]) + b"\n", "line 2: found 5 columns"),
    ],
)
def test_a_damaged_row_is_named_before_anything_is_written(folder, tsv, line, words):
    tsv.write_bytes(row(1) + line + rows(range(2, 8)))
    assert refused(words, folder, tsv).startswith(f"{tsv}: line 2")


def test_a_truncated_last_line(folder, tsv):
    for cut in range(2, len(row(7)), 9):
        tsv.write_bytes(rows(range(8))[:-cut])
        assert refused("line 8", folder, tsv).startswith(f"{tsv}: line 8")
    tsv.write_bytes(rows(range(8))[:-1])  # without the line end alone
    write_features(folder, [tsv], BOXES)


@pytest.mark.parametrize(
    ("column", "content", "words"),
    [
        (5, b"!" + ROW[5][1:], "features: not readable as base64 of float32"),
        (5, b"\xff" + ROW[5][1:], "features: not readable as base64 of float32"),
        (5, b"=" + ROW[5][1:], "features: not readable as base64 of float32"),
        (4, ROW[4][:8] + b" " + ROW[4][9:], "boxes: not readable as base64 of float32"),
    ],
)
def test_damaged_base64(folder, tsv, column, content, words):
    tsv.write_bytes(rows(range(1, 8)) + with_column(column, content))
    with pytest.raises(UWMLError, match=words) as error:
        write_features(folder, [tsv], BOXES)
    assert str(error.value).startswith(f"{tsv}: line 8, image 0000: ")
    assert not list(folder.glob("*.npy"))


@pytest.mark.parametrize(("name", "value"), [("boxes", np.nan), ("features", np.inf), ("features", -np.inf)])
def test_numbers_that_are_not_finite(folder, tsv, name, value):
    arrays = {"boxes": boxes_of(0), "features": features_of(0)}
    arrays[name][-1, -1] = value
    tsv.write_bytes(tsv_row("0000", **arrays) + rows(range(1, 8)))
    with pytest.raises(UWMLError, match=f"line 1, image 0000: {name}: found NaN or infinity, expected finite numbers"):
        write_features(folder, [tsv], BOXES)
    tsv.write_bytes(rows(range(8)))  # mended, it begins anew
    write_features(folder, [tsv], BOXES)
    check(folder, "train", range(6))


def test_files_that_cannot_be(folder, tsv, tmp_path):
    refused("TSV: found no file, expected at least one", folder)
    refused("boxes: found -1, expected at least 1, or 0", folder, tsv, boxes=-1)
    refused("absent: no such file", folder, tsv, tmp_path / "absent")
    refused("found a folder without .npz files, expected a TSV file, or a folder", folder, tmp_path)
    (tmp_path / "empty").touch()
    refused("empty: found an empty file, expected rows of image_id", folder, tsv, tmp_path / "empty")
    with pytest.raises(UWMLError, match="nowhere: found none of train_ids.txt, dev_ids.txt, .*`uwml captions` writes"):
        write_features(tmp_path / "nowhere", [tsv], BOXES)
    assert not list(tmp_path.glob(".nowhere*"))


def test_a_line_without_end(folder, tsv, monkeypatch):
    monkeypatch.setattr(bottom_up, "LONGEST_ROW", 1000)
    tsv.write_bytes(row(0) + b"x" * 5000)
    refused("line 2: found 1,000 bytes and no end, expected a row", folder, tsv)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ("a\n\nb\n", "line 2 is empty"),
        ("", "line 1 is empty"),
        ("a\nb\na\nb\n", "found more than once: a, b; expected"),
    ],
)
def test_ids_that_cannot_be(folder, tsv, ids, words):
    (folder / "test_ids.txt").write_text(ids)
    refused(f"test_ids.txt: {words}", folder, tsv)


def test_other_arrays_are_left_alone(folder, tsv):
    (folder / "dev_ims.npy").write_bytes(b"downloaded")
    refused("dev_ims.npy: is there already; move it away", folder, tsv)
    (folder / "dev_ims.npy").unlink()
    write_features(folder, [tsv], BOXES)
    tsv.write_bytes(rows(range(7, -1, -1)))  # another file: what was made of the first stays
    refused("train_ims.npy: is there already; move it away", folder, tsv)
    (folder / "train_ims.npy").unlink()
    refused("dev_ims.npy: is there already; move it away|train_boxes.npy: is there already", folder, tsv)
    for path in folder.glob("*.npy"):
        path.unlink()
    write_features(folder, [tsv], BOXES)
    check(folder, "train", range(6))


def test_no_room(folder, tsv, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(639))
    refused("data: found 0.0 GB free, expected 0.0 for the features", folder, tsv)  # 8 x 3 x 9 x 4 = 864 bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(864))
    write_features(folder, [tsv], BOXES)


def test_a_disk_that_fills_up_is_said_and_with_room_it_goes_on(folder, tsv, monkeypatch, capsys):
    left, write = 13, growing._write_rows

    def full(*arguments):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(*arguments)

    monkeypatch.setattr(bottom_up, "ROWS_A_STEP", 2)
    with monkeypatch.context() as context, pytest.raises(UWMLError, match=r"cannot be written \(No space left on dev"):
        context.setattr(growing, "_write_rows", full)
        write_features(folder, [tsv], BOXES)
    assert not list(folder.glob("*.npy"))
    capsys.readouterr()
    write_features(folder, [tsv], BOXES)
    assert "6 images were done before" in capsys.readouterr().out
    check(folder, "train", range(6))
    check(folder, "dev", (6, 7))


# ------------------------------------------------------------------------------------------------ kills

PLACES = {"bottom_up": bottom_up, "growing": growing, "os": os, "format": np.lib.format}


def killed(where: str, name: str, times: int, folder: Path, tsv: Path) -> int:
    """Write the features in a process that is killed when a function is called the n-th time; return its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking where there are threads, which lie idle
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    whole, left = getattr(PLACES[where], name), times

    def until(*arguments, **options):
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*arguments, **options)

    try:
        setattr(PLACES[where], name, until)
        bottom_up.ROWS_A_STEP = 2
        write_features(folder, [tsv], BOXES)
    finally:
        os._exit(1)


# Where, and how many rows are known to be done; a row is decoded when it is written.
MOMENTS = [
    ("format", "open_memmap", 2, 0),
    ("bottom_up", "_decoded", 3, 2),
    ("growing", "write_sealed_json", 5, 6),
    ("os", "replace", 8, 8),
    ("bottom_up", "_row", 4, 0),  # looking for images
    ("growing", "write_sealed_json", 1, 0),
    ("bottom_up", "_decoded", 1, 0),
    ("os", "fsync", 7, 2),  # one for the journal, then four and one a step
    ("growing", "write_sealed_json", 3, 2),
    ("bottom_up", "_decoded", 8, 6),
    ("os", "fsync", 18, 6),
    ("os", "replace", 6, 8),  # five for the journal, the next gives an array its name
]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork a process")
@pytest.mark.parametrize(("where", "name", "times", "done"), MOMENTS)
def test_a_kill_costs_nothing(folder, tsv, capsys, where, name, times, done):
    assert killed(where, name, times, folder, tsv) == -signal.SIGKILL
    finished = {path.stem for path in folder.glob("*.npy")}
    assert len(finished) == max(0, times - 6 if name == "replace" else 0)
    write_features(folder, [tsv], BOXES)
    assert (f"{done} images were done before" in capsys.readouterr().out) == bool(done)
    check(folder, "train", range(6))
    check(folder, "dev", (6, 7))
    assert hidden(folder) == [JOURNAL]


def stopped(*arguments):
    raise KeyboardInterrupt


@pytest.mark.parametrize("rows_read", [3, 8])
def test_a_stop_costs_nothing_where_numbers_are_unequal(folder, adaptive_tsv, monkeypatch, capsys, rows_read):
    with monkeypatch.context() as context:  # after the last row: before the arrays get their names
        context.setattr(growing, "atomic_path", stopped)
        stop_after(folder, adaptive_tsv, rows_read, monkeypatch, boxes=0)
    assert not list(folder.glob("*.npy"))
    capsys.readouterr()
    write_features(folder, [adaptive_tsv], 0)
    assert f"{rows_read // 2 * 2} images were done before" in capsys.readouterr().out
    check_adaptive(folder, "train", range(6))
    check_adaptive(folder, "dev", (6, 7))


def stop_after(folder: Path, tsv: Path, rows_read: int, monkeypatch, boxes: int = BOXES) -> None:
    """Stop within a step, as a kill would."""
    left = rows_read

    def decoded(*arguments, whole=bottom_up._decoded):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return whole(*arguments)

    with monkeypatch.context() as context, contextlib.suppress(KeyboardInterrupt):
        context.setattr(bottom_up, "ROWS_A_STEP", 2)
        context.setattr(bottom_up, "_decoded", decoded)
        write_features(folder, [tsv], boxes)


@pytest.mark.parametrize("change", ["rows", "order", "ids", "part"])
def test_other_inputs_begin_anew(folder, tsv, monkeypatch, capsys, change):
    stop_after(folder, tsv, 5, monkeypatch)
    assert len(hidden(folder)) == 5
    train = range(6)
    if change == "rows":  # of the same length, in place
        content = tsv.read_bytes()
        tsv.write_bytes(content.replace(row(7), tsv_row("0007", boxes_of(7), features_of(0))))
    elif change == "order":
        tsv.write_bytes(rows(range(8)))
    elif change == "ids":
        train = (5, 4, 3, 2, 1, 0)
        write_ids(folder, train=train)
    else:
        part = folder / ".train_ims.npy.part"
        part.write_bytes(part.read_bytes()[:-1])
    capsys.readouterr()
    write_features(folder, [tsv], BOXES)
    assert "done before" not in capsys.readouterr().out
    check(folder, "train", train)
    if change == "rows":
        assert np.array_equal(np.load(folder / "dev_ims.npy")[1], features_of(0))
    else:
        check(folder, "dev", (6, 7))


def test_the_same_inputs_go_on(folder, tsv, monkeypatch, capsys):
    stop_after(folder, tsv, 5, monkeypatch)
    capsys.readouterr()
    decoded = []
    whole = bottom_up._decoded
    monkeypatch.setattr(bottom_up, "_decoded", lambda row, *rest: decoded.append(row.where) or whole(row, *rest))
    write_features(folder, [tsv], BOXES)
    assert "4 images were done before" in capsys.readouterr().out
    lines = sorted({int(re.search(r"line (\d+)", where)[1]) for where in decoded})
    assert lines == [6, 7, 8, 9]  # line 4 is left out, so 1, 2, 3 and 5 were done
    check(folder, "train", range(6))
    check(folder, "dev", (6, 7))


def test_a_changed_journal(folder, tsv, monkeypatch):
    stop_after(folder, tsv, 3, monkeypatch)
    journal = folder / JOURNAL
    journal.write_text(journal.read_text().replace('"done": 2', '"done": 6'))
    refused("features.json: was changed after it was written; remove it", folder, tsv)


# ------------------------------------------------------------------------------------------------ memory

# Prints the largest anonymous memory seen, in kB, on the way through the rows.
MEASURED = """
import sys
from pathlib import Path
from uwml_lib.datasets.raw import bottom_up

most, whole = 0, bottom_up._row

def row(*arguments):
    global most
    with open("/proc/self/status") as status:
        most = max(most, next(int(line.split()[1]) for line in status if line.startswith("RssAnon")))
    return whole(*arguments)

bottom_up._row = row
bottom_up.write_features(Path(sys.argv[1]), [Path(sys.argv[2])])
print(most)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how much memory is anonymous")
def test_memory_does_not_grow_with_the_rows(tmp_path):
    most = {}
    for count in (500, 5000):
        folder = write_ids(tmp_path / f"of{count}", train=range(count))
        generator = np.random.default_rng(0)
        with open(tmp_path / "features.tsv", "wb") as file:
            for number in generator.permutation(count):
                features = generator.normal(size=(36, 64)).astype(np.float32)
                file.write(tsv_row(f"{number:04d}", np.ones((36, 4)), features))
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(folder), str(tmp_path / "features.tsv")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        most[count] = int(done.stdout.split()[-1])
    assert most[5000] == pytest.approx(most[500], rel=0.1), most
