"""Karpathy's JSON: which captions and ids come of it, and what is refused."""

import json

import pytest

from tests.raw import entry
from uwml_lib.cli import main
from uwml_lib.datasets.raw import karpathy
from uwml_lib.datasets.raw.karpathy import read_karpathy, write_captions
from uwml_lib.support.errors import UWMLError

FIVE = ("one", "two", "three", "four", "five")


def five(name: str) -> list[str]:
    return [f"{name} {word}" for word in FIVE]


def written(tmp_path, images, dataset="flickr30k"):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"images": images, "dataset": dataset}), encoding="utf-8")
    return path


def lines(folder) -> dict[str, list[str]]:
    return {path.name: path.read_text(encoding="utf-8").splitlines() for path in folder.iterdir()}


def test_every_split_gets_captions_and_ids(tmp_path, capsys):
    images = [
        entry("1000092795.jpg", "train", [*five("a"), "a sixth, left out"]),
        entry("30.jpg", "val", five("b")),
        entry("7.jpg", "train", five("c")),
        entry("0012.jpg", "test", five("d")),
    ]
    assert main(["captions", str(tmp_path / "new/f30k"), str(written(tmp_path, images))]) == 0
    assert lines(tmp_path / "new/f30k") == {
        "train_caps.txt": five("a") + five("c"), "train_ids.txt": ["1000092795", "7"],
        "dev_caps.txt": five("b"), "dev_ids.txt": ["30"],
        "test_caps.txt": five("d"), "test_ids.txt": ["0012"],
    }  # fmt: skip
    assert "train: 2 images, 5 captions each\n" in capsys.readouterr().out


def test_of_other_data_sets_each_split_keeps_as_many_as_all_its_images_have(tmp_path, capsys):
    images = [
        entry("1.jpg", "train", [*FIVE, *FIVE]), entry("2.jpg", "train", [*FIVE, "six"]),
        entry("3.jpg", "val", FIVE), entry("4.jpg", "test", ["one"]),
    ]  # fmt: skip
    write_captions(tmp_path / "new", written(tmp_path, images, "cub"))
    assert {name: len(some) for name, some in lines(tmp_path / "new").items() if "caps" in name} == {
        "train_caps.txt": 12, "dev_caps.txt": 5, "test_caps.txt": 1,
    }  # fmt: skip
    out = capsys.readouterr().out
    assert "train: 2 images, 6 captions each; 4 captions left out\n" in out
    assert "test: 1 image, 1 caption each\n" in out


def test_flickr8k_keeps_the_whole_name(tmp_path):
    images = [entry("1000268201_693b08cb0e.jpg", "train", five("a")), entry("a.b.jpg", "train", five("b"))]
    found = read_karpathy(written(tmp_path, images, "flickr8k"))
    assert list(found["train"]) == ["1000268201_693b08cb0e", "a.b"]


def test_restval_is_trained_on_and_test_is_the_first_of_testall(tmp_path, monkeypatch):
    monkeypatch.setattr(karpathy, "TEST_1K", 2)
    splits = ("test", "restval", "val", "train", "test", "test")
    images = [entry(f"COCO_{number}.jpg", split, FIVE, cocoid=100 - number) for number, split in enumerate(splits)]
    found = {split: list(some) for split, some in read_karpathy(written(tmp_path, images, "coco")).items()}
    assert found == {"train": ["99", "97"], "dev": ["98"], "test": ["100", "96"], "testall": ["100", "96", "95"]}


def test_the_1k_test_is_of_a_thousand(tmp_path):
    images = [entry(f"{number}.jpg", "test", FIVE, cocoid=number) for number in range(1003)]
    found = read_karpathy(written(tmp_path, images, "coco"))
    assert list(found["test"]) == [str(number) for number in range(1000)]
    assert len(found["testall"]) == 1003


def test_a_caption_is_one_line(tmp_path):
    sentences = ["  A dog\nruns .\r\n", "a\u2028b\x85c", "tab\tbed", "naïve 犬", "x"]
    found = read_karpathy(written(tmp_path, [entry("1.jpg", "train", sentences)]))["train"]
    assert found["1"] == ["A dog runs .", "a b c", "tab bed", "naïve 犬", "x"]


def test_what_is_there_is_kept(tmp_path):
    folder = tmp_path / "f30k"
    path = written(tmp_path, [entry("1.jpg", "train", FIVE), entry("2.jpg", "val", FIVE)])
    write_captions(folder, path)
    before = lines(folder)
    (folder / "dev_ids.txt").unlink()  # as after a kill
    write_captions(folder, path)
    assert lines(folder) == before
    (folder / "dev_ids.txt").write_text("released\n", encoding="utf-8")
    (folder / "train_caps.txt").unlink()
    with pytest.raises(UWMLError, match="dev_ids.txt: found other lines than dataset.json gives; move it away"):
        write_captions(folder, path)
    assert lines(folder) == {**{k: v for k, v in before.items() if k != "train_caps.txt"}, "dev_ids.txt": ["released"]}


GOOD = entry("1.jpg", "train", FIVE)
SENTENCE = {"raw": "x"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "expected a JSON dict at the top level, found list"),
        ({}, "images: found nothing, expected a list of at least one"),
        ({"images": []}, r"images: found \[\], expected a list"),
        ({"images": {"a": 1}}, r"images: found \{'a': 1\}, expected a list"),
        ({"images": [GOOD, "x"]}, r"images\[1\]: found 'x', expected a JSON object"),
        ({"images": [GOOD, {}]}, r"images\[1\]: filename: found nothing, expected the name of a file"),
        ({"images": [{**GOOD, "filename": "a\nb.jpg"}]}, r"images\[0\]: filename: found 'a\\nb.jpg', expected"),
        ({"images": [{**GOOD, "filename": ""}]}, r"images\[0\]: filename: found ''"),
        ({"images": [{**GOOD, "split": "eval"}]}, r"images\[0\], 1: split: found 'eval', expected one of train, rest"),
        ({"images": [{**GOOD, "split": ["x"]}]}, r"images\[0\], 1: split: found \['x'\]"),
        ({"images": [{**GOOD, "sentences": None}]}, r"images\[0\], 1: sentences: found nothing, expected a list of"),
        ({"images": [{**GOOD, "sentences": [SENTENCE] * 4}], "dataset": "flickr8k"}, r"1: sentences: found 4, exp"),
        ({"images": [{**GOOD, "sentences": [SENTENCE] * 4 + ["x"]}]}, r"1: sentences\[4\]: found 'x', expected a JSON"),
        ({"images": [{**GOOD, "sentences": [{"raw": " \n"}] * 5}]}, r"1: sentences\[0\]: raw: found ' \\n', expected"),
        ({"images": [{**GOOD, "sentences": [{"raw": 3}] * 5}]}, r"1: sentences\[0\]: raw: found 3, expected a text"),
        ({"images": [{**GOOD, "sentences": [{"raw": "a\0"}] * 5}]}, r"raw: found 'a\\x00', expected a text of 1 to"),
        ({"images": [{**GOOD, "sentences": [{"raw": "\ud800"}] * 5}]}, r"raw: found '\\ud800', expected a text"),
        ({"images": [{**GOOD, "sentences": [{"raw": "x" * 5001}] * 5}]}, "raw: found 5,001 characters, expected a tex"),
        ({"images": [GOOD, entry("2.jpg", "val", FIVE), GOOD]}, r"images\[0\] and .*: images\[2\] are both 1, exp"),
        ({"images": [GOOD], "dataset": "coco"}, r"images\[0\]: cocoid: found nothing, expected a number"),
        ({"images": [{**GOOD, "cocoid": 1}, GOOD]}, r"images\[1\]: cocoid: found nothing, expected a number"),
        ({"images": [{**GOOD, "cocoid": "1"}]}, r"images\[0\]: cocoid: found '1', expected a number"),
    ],
)  # fmt: skip
def test_another_shape_is_refused_by_file_and_image(tmp_path, content, words):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UWMLError, match=words) as error:
        write_captions(tmp_path / "folder", path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("content", [b"", b"{", b'{"images": ["\xff"]}'])
def test_no_json_is_a_sentence(tmp_path, content, capsys):
    path = tmp_path / "dataset.json"
    path.write_bytes(content)
    assert main(["captions", str(tmp_path / "folder"), str(path)]) == 1
    assert f"uwml captions: {path}: not readable as JSON" in capsys.readouterr().err
