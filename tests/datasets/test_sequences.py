"""Images of unequal numbers of regions, and captions that are vectors."""

import pickle

import numpy as np
import pytest
import torch

from tests.tiny import make_varying, write_caption_vectors, write_tiny
from uwml_lib.datasets import PrecomputedDataset, build_vocabulary, captions_there, evaluation_split, fingerprint
from uwml_lib.datasets.batches import Sequences
from uwml_lib.datasets.precomputed import check_same_shape
from uwml_lib.support.errors import UWMLError


@pytest.fixture
def plain(tmp_path):
    """The images as they were, three regions each, (n, 3, 9)."""
    write_tiny(tmp_path, {"train": 5, "dev": 7})
    return np.load(tmp_path / "dev_ims.npy")


@pytest.fixture
def folder(plain, tmp_path):
    make_varying(tmp_path)
    write_caption_vectors(tmp_path)
    return tmp_path


def expected(plain, numbers):
    """Item by item: the first i % 3 + 1 regions, zeros up to the longest of the batch."""
    longest = max(number % 3 + 1 for number in numbers)
    rows = np.zeros((len(numbers), longest, 9), np.float32)
    for row, number in zip(rows, numbers, strict=True):
        row[: number % 3 + 1] = plain[number][: number % 3 + 1]
    return torch.from_numpy(rows)


def test_items_of_unequal_length(folder, plain):
    dataset = PrecomputedDataset(folder, "dev", build_vocabulary(folder))
    assert (dataset.varying, dataset.features.shape, dataset.feature_dim) == (True, (7, 3, 9), 9)
    assert torch.equal(dataset.images(0, 7), expected(plain, range(7)))
    assert torch.equal(dataset.images(3, 4), expected(plain, [3]))  # no longer than the longest asked for
    batch = dataset.batch([12, 3, 2, 8])
    assert torch.equal(batch.features, expected(plain, [6, 1, 1, 4]))
    assert batch.counts.tolist() == [1, 2, 2, 2]
    assert batch.to(torch.device("meta")).counts.device.type == "cpu"
    assert dataset[4][0].shape == (3, 9)


def test_equal_numbers_are_counted_too(tmp_path):
    write_tiny(tmp_path, {"train": 5, "dev": 7})
    dataset = PrecomputedDataset(tmp_path, "dev", build_vocabulary(tmp_path))
    assert not dataset.varying
    assert dataset.batch([1, 8]).counts.tolist() == [3, 3]


def test_some_items_and_some_rows_alone(folder, plain):
    dataset = PrecomputedDataset(folder, "dev", max_images=6, regions=2)
    dataset.keep(2, 5)
    wanted = expected(plain, [2, 3, 4])[:, :2]
    for found in (dataset, pickle.loads(pickle.dumps(dataset))):
        assert found.features.shape == (3, 2, 9)
        assert torch.equal(found.images(0, 3), wanted)
        assert found.counts([0, 1, 2]).tolist() == [2, 1, 2]
    assert isinstance(found.features.rows, np.memmap)


def test_one_vector_an_image_is_one_region(folder, plain):
    (folder / "dev_offsets.npy").unlink()
    np.save(folder / "dev_ims.npy", plain[:, 0])
    assert torch.equal(PrecomputedDataset(folder, "dev").images(0, 7), torch.from_numpy(plain[:, :1]))


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 1, 3], "found 3 numbers from 0 to 3, int64, expected whole ones from 0 to the 13 rows of dev_ims.npy"),
        ([1, 2, 13], "found 3 numbers from 1 to 13"),
        ([0], "found 1 numbers from 0 to 0"),
        ([0.0, 13.0], "found 2 numbers from 0.0 to 13.0, float64"),
        ([0, 4, 4, 13], r"item 1 \(counted from 0\) has 0 rows, expected at least 1"),
        ([0, 5, 4, 13], r"item 1 \(counted from 0\) has -1 rows"),
    ],
)
def test_bad_offsets(folder, offsets, message):
    np.save(folder / "dev_offsets.npy", np.array(offsets))
    with pytest.raises(UWMLError, match=f"dev_offsets.npy: {message}"):
        PrecomputedDataset(folder, "dev")


def test_rows_with_offsets_are_a_matrix(folder, plain):
    np.save(folder / "dev_ims.npy", plain)
    with pytest.raises(UWMLError, match="dev_ims.npy: found float32 .* in 2 dimensions"):
        PrecomputedDataset(folder, "dev")


def test_an_item_that_is_not_finite_is_named(folder):
    rows = np.load(folder / "dev_ims.npy")
    rows[np.load(folder / "dev_offsets.npy")[5]] = np.nan
    np.save(folder / "dev_ims.npy", rows)
    with pytest.raises(UWMLError, match=r"dev_ims.npy: image 5 \(counted from 0\) holds NaN"):
        PrecomputedDataset(folder, "dev").scan()


def test_rows_are_read_when_they_are_asked_for(tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(20.0).reshape(10, 2))
    np.save(tmp_path / "offsets.npy", np.array([0, 1, 10]))
    found = Sequences.load(tmp_path / "rows.npy", tmp_path / "offsets.npy")
    assert isinstance(found.rows, np.memmap)
    assert found.padded([0]).tolist() == [[[0, 1]]]
    assert found.padded([]).shape == (0, 0, 2)


# ------------------------------------------------------------------------------------------------ captions as vectors


def test_captions_that_are_vectors(folder):
    dataset = PrecomputedDataset(folder, "dev", caption_style="vectors")
    vectors = torch.from_numpy(np.load(folder / "dev_caps.npy"))
    assert dataset.caption_size == 11
    assert dataset.caption_lengths.tolist() == [1] * 14
    batch = dataset.batch([13, 0])
    assert torch.equal(batch.tokens, vectors[[13, 0]])
    assert (batch.lengths.tolist(), batch.image_ids.tolist()) == ([1, 1], [6, 0])
    dataset.keep(2, 4)
    assert torch.equal(dataset.read_captions([0, 3])[0], vectors[[4, 7]])


def test_the_text_of_vectors_may_be_missing(folder):
    (folder / "dev_caps.txt").unlink()
    dataset = PrecomputedDataset(folder, "dev", caption_style="vectors")
    assert (dataset.captions_per_image, dataset.captions[3]) == (2, "caption 3")
    assert fingerprint(folder, "vectors")
    with pytest.raises(UWMLError, match="dev_caps.txt: no such file"):
        fingerprint(folder)


def test_as_many_vectors_as_captions(folder):
    np.save(folder / "dev_caps.npy", np.zeros((13, 4)))
    with pytest.raises(UWMLError, match="dev_caps.npy: found 13 vectors, expected one for each of the 14 captions"):
        PrecomputedDataset(folder, "dev", caption_style="vectors")


def test_a_vector_that_is_not_finite_is_named(folder):
    vectors = np.load(folder / "dev_caps.npy")
    vectors[9, 2] = np.inf
    np.save(folder / "dev_caps.npy", vectors)
    dataset = PrecomputedDataset(folder, "dev", caption_style="vectors")
    dataset.keep(3, 7)
    with pytest.raises(UWMLError, match=r"dev_caps.npy: row 9 \(counted from 0\) holds NaN, infinity"):
        dataset.scan()


def test_vectors_of_all_splits_are_of_one_size(folder):
    np.save(folder / "dev_caps.npy", np.zeros((14, 4)))
    splits = [PrecomputedDataset(folder, split, caption_style="vectors") for split in ("train", "dev")]
    with pytest.raises(UWMLError, match="dev_caps.npy: found 4 numbers a caption, expected 11 as in train_caps.npy"):
        check_same_shape(*splits)


def test_the_fingerprint_covers_what_is_read(folder):
    text, vectors = fingerprint(folder), fingerprint(folder, "vectors")
    np.save(folder / "dev_caps.npy", 2 * np.load(folder / "dev_caps.npy"))
    assert fingerprint(folder) == text
    assert fingerprint(folder, "vectors") != vectors
    offsets = np.load(folder / "dev_offsets.npy")
    np.save(folder / "dev_offsets.npy", np.r_[0, offsets[1] + 1, offsets[2:]])
    assert fingerprint(folder) != text


@pytest.mark.parametrize("name", ["test_caps.npy", "test_caps.txt", "test_offsets.npy"])
def test_a_test_split_without_features_is_not_passed_over(folder, name):
    (folder / name).write_bytes(b"")
    with pytest.raises(UWMLError, match=f"test_ims.npy: no such file, though there is {name}"):
        evaluation_split(folder)


def test_what_captions_there_are(folder):
    assert captions_there(folder) == "text"
    (folder / "train_caps.txt").unlink()
    assert captions_there(folder) == "vectors"


def test_a_count_that_does_not_fit_names_the_vectors(folder):
    (folder / "dev_caps.txt").unlink()
    np.save(folder / "dev_caps.npy", np.zeros((13, 4)))
    with pytest.raises(UWMLError, match="dev_caps.npy: found 13 captions for the 7 images"):
        PrecomputedDataset(folder, "dev", caption_style="vectors")


def test_the_first_regions_of_every_item_may_be_more_than_some_split_has(folder):
    assert PrecomputedDataset(folder, "dev", regions=9).features.shape == (7, 3, 9)
