"""What an audit finds: copies across splits and within them, twins, and rows that say nothing."""

import json

import numpy as np
import pytest

from tests.tiny import make_varying, write_caption_vectors, write_split, write_tiny
from uwml_lib.datasets import PrecomputedDataset, captions_there
from uwml_lib.datasets.audit import Audit, audit, audit_of, save_audit, twin_captions
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError

SIZES = {"train": 30, "dev": 8, "test": 10}


@pytest.fixture
def folder(tmp_path):
    """Images of noise, 4 regions x 24 numbers, with two captions each that no other image has."""
    generator = np.random.default_rng(0)
    for split, size in SIZES.items():
        captions = [f"{split} dog number {i} runs {k} ." for i in range(size) for k in range(2)]
        write_split(tmp_path, split, generator.normal(size=(size, 4, 24)).astype(np.float32), captions)
    return tmp_path


def audited(folder) -> Audit:
    style = captions_there(folder)
    return audit([PrecomputedDataset(folder, split, caption_style=style) for split in SIZES])


def change(folder, split, edit):
    features = np.load(folder / f"{split}_ims.npy")
    np.save(folder / f"{split}_ims.npy", edit(features))


def caption(folder, split, lines):
    path = folder / f"{split}_caps.txt"
    texts = path.read_text().splitlines()
    for line, text in lines.items():
        texts[line] = text
    path.write_text("\n".join(texts))


def test_nothing_is_found_where_nothing_is(folder):
    found = audited(folder)
    assert found.warnings == []
    assert found.counts["test"] == {
        "images": 10, "captions": 20, "twins": 0, "constant": 0, "zero_regions": 0, "long": 0, "wordless": 0,
        "equal_images": {"train": 0, "dev": 0, "test": 0}, "near_images": {"train": 0, "dev": 0, "test": 0},
        "equal_captions": {"train": 0, "dev": 0},
    }  # fmt: skip
    assert "Warning" not in str(found)


def test_a_test_split_copied_from_train(folder):
    for kind in ("ims.npy", "caps.txt"):
        (folder / f"test_{kind}").write_bytes((folder / f"train_{kind}").read_bytes())
    found = audited(folder)
    assert found.warnings == ["also in train: 30 images and 60 captions of test"]
    assert found.counts["test"]["equal_images"] == {"train": 30, "dev": 0, "test": 0}
    assert found.counts["train"]["equal_images"] == {"train": 0}
    assert "images equal to one in train" in str(found)


def test_copies_of_other_numbers_and_types_are_found(folder):
    train = np.load(folder / "train_ims.npy")
    noise = np.random.default_rng(1).normal(size=train.shape)
    change(folder, "test", lambda x: np.concatenate([train[:3] + 0.02 * noise[:3], x[3:]]).astype(np.float32))
    change(folder, "dev", lambda x: np.concatenate([x[:6], train[5:7]]).astype(np.float64))
    found = audited(folder)
    assert found.counts["test"]["near_images"] == {"train": 3, "dev": 0, "test": 0}
    assert found.counts["dev"]["equal_images"] == {"train": 2, "dev": 0}
    assert found.warnings == [
        "also in train: 2 images and 0 captions of dev",
        "test: images nearly equal to one in train: 3",
    ]


def test_copies_within_a_split(folder):
    def repeat(x):
        x[4:6], x[7] = x[2], x[1] * 1.001
        return x

    change(folder, "dev", repeat)
    found = audited(folder)
    assert (found.counts["dev"]["equal_images"]["dev"], found.counts["dev"]["near_images"]["dev"]) == (2, 1)
    assert found.warnings == ["dev: images equal to one in dev: 2", "dev: images nearly equal to one in dev: 1"]


def test_images_with_the_same_mean_are_not_equal(folder):
    change(folder, "test", lambda x: np.concatenate([np.load(folder / "train_ims.npy")[:1, ::-1], x[1:]]))
    found = audited(folder)
    assert found.counts["test"]["equal_images"]["train"] == found.counts["test"]["near_images"]["train"] == 0


def test_rows_that_say_nothing(folder):
    def empty(x):
        x[0], x[1], x[2, 3] = 0, 7, 0
        return x

    change(folder, "test", empty)
    caption(
        folder,
        "test",
        {0: "dog " * 101, 3: "- . !", 4: "train dog  number 0 runs 0 .", 5: "train dog number 0 runs 1 ."},
    )
    found = audited(folder)
    counts = found.counts["test"]
    assert [counts[what] for what in ("constant", "zero_regions", "long", "wordless")] == [2, 2, 1, 1]
    assert found.warnings == [
        "test: images whose numbers are all the same: 2",
        "test: images with regions of zeros: 2",
        "test: captions of more than 100 words: 1",
        "test: captions without a word: 1",
        "test: images with all captions of one in train: 1",
    ]


def test_unequal_numbers_of_regions(tmp_path):
    write_tiny(tmp_path, SIZES)
    make_varying(tmp_path)
    clean = audited(tmp_path)
    assert all(count["zero_regions"] == count["constant"] == 0 for count in clean.counts.values())  # padding is none
    features, ends = (np.load(tmp_path / f"train_{name}.npy") for name in ("ims", "offsets"))
    np.save(tmp_path / "test_ims.npy", features[: ends[10]])
    np.save(tmp_path / "test_offsets.npy", ends[:11])
    assert audited(tmp_path).counts["test"]["equal_images"] == {"train": 10, "dev": 0, "test": 0}


def test_captions_that_are_vectors(tmp_path):
    write_tiny(tmp_path, SIZES)
    write_caption_vectors(tmp_path)
    with_text = audited(tmp_path).counts
    for split in SIZES:
        (tmp_path / f"{split}_caps.txt").unlink()
    counts = audited(tmp_path).counts
    assert counts["test"]["twins"] == with_text["test"]["twins"] > 0  # the same words, and so the same vectors
    assert counts["test"]["equal_captions"] == with_text["test"]["equal_captions"]


@pytest.mark.parametrize(
    ("captions", "captions_per_image", "expected"),
    [
        (["a dog", "a cat", "a bird", "a fish"], 2, 0),
        (["a dog", "a dog", "a cat", "a bird"], 2, 0),  # of one image
        (["a dog .", "a cat", "a dog .", "a bird"], 2, 2),
        (["a dog", "a dog", "a dog", "a bird"], 2, 3),
        (["a dog .", "A dog .", "a dog"], 1, 0),
        (["one", "two", "one", "two"], 2, 4),
        ([], 1, 0),
    ],
)
def test_twin_captions(captions, captions_per_image, expected):
    assert twin_captions(captions, captions_per_image) == expected


def test_many_twins_are_a_warning(folder):
    caption(folder, "test", {0: "a dog .", 2: "a  dog . "})
    assert audited(folder).warnings == []  # as in every collection of photographs
    caption(folder, "test", {4: "a dog ."})
    assert audited(folder).warnings == ["test: captions that another image has too: 3"]


def test_an_audit_is_kept_for_its_data(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "AUDITS", tmp_path / "audits")
    found = audited(folder)
    assert audit_of("abc") is None
    save_audit(found, "abc")
    assert audit_of("abc") == {"counts": found.counts, "warnings": []}
    file = tmp_path / "audits/abc.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"warnings": ["none"]}))
    with pytest.raises(UWMLError, match="abc.json: was changed"):
        audit_of("abc")
