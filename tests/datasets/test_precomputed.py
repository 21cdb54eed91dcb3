"""Folders in the SCAN layout: what is read, what becomes of it in a batch, and what is refused."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.tiny import write_split, write_tiny
from uwml_lib.datasets import (
    Batch,
    PrecomputedDataset,
    Vocabulary,
    build_vocabulary,
    evaluation_split,
    fingerprint,
    pad_captions,
)
from uwml_lib.datasets.audit import twin_captions
from uwml_lib.datasets.vocabulary import SPECIALS
from uwml_lib.support.errors import UWMLError

CAPTIONS = ("a dog", "a dog runs fast", "a cat", "one cat", "a red red car", "car")


@pytest.fixture
def folder(tmp_path):
    """Three images of 4 regions x 5 numbers, two captions each."""
    write_split(tmp_path, "dev", np.arange(60, dtype=np.float32).reshape(3, 4, 5), CAPTIONS)
    return tmp_path


@pytest.fixture
def words():
    return Vocabulary([*SPECIALS, "a", "dog", "cat"])


def test_items(folder, words):
    dataset = PrecomputedDataset(folder, "dev", words)
    assert isinstance(dataset.features, np.memmap)
    assert (len(dataset), dataset.captions_per_image, dataset.feature_dim) == (6, 2, 5)
    assert dataset.captions == list(CAPTIONS)
    for index in range(6):
        features, tokens, image = dataset[index]
        assert image == index // 2
        assert torch.equal(features, 20 * image + torch.arange(20.0).view(4, 5))
        assert tokens.tolist() == words.encode(CAPTIONS[index])
    assert torch.equal(dataset.images(1, 3), torch.arange(20.0, 60.0).view(2, 4, 5))


def test_sentences_have_numbers(folder, words):
    write_split(folder, "dev", np.zeros((3, 4, 5)), ("a dog", "a  cat ", "a cat", "one cat", "a dog", "A dog"))
    dataset = PrecomputedDataset(folder, "dev", words)
    assert dataset.sentences.tolist() == [0, 1, 1, 2, 0, 3]
    assert dataset.batch([2, 5]).sentences.tolist() == [[1, 1, 2], [3, 0, 3]]  # of the caption, then of its image
    dataset.keep(1, 3)
    assert dataset.batch([0]).sentences.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.float16, np.float64, np.dtype(">f4"), np.int64])
def test_every_real_dtype_becomes_float32(folder, dtype):
    features = np.arange(60).reshape(3, 4, 5).astype(dtype)
    write_split(folder, "dev", features, CAPTIONS)
    images = PrecomputedDataset(folder, "dev").images(0, 3)
    assert images.dtype == torch.float32
    assert images.flatten().tolist() == list(range(60))


def test_negative_int8_features(folder):
    write_split(folder, "dev", np.full((3, 4, 5), -128, dtype=np.int8), CAPTIONS)
    assert (PrecomputedDataset(folder, "dev").images(0, 1) == -128).all()


@pytest.mark.parametrize("captions_per_image", [1, 2, 3, 6])
def test_captions_per_image_are_counted(folder, captions_per_image):
    write_split(folder, "train", np.arange(6 // captions_per_image).reshape(-1, 1, 1), CAPTIONS)
    dataset = PrecomputedDataset(folder, "train")
    assert dataset.captions_per_image == captions_per_image
    assert len(dataset) == 6


def test_the_first_images_alone(folder, words):
    (folder / "dev_ids.txt").write_text("x\ny\nz\n")
    dataset = PrecomputedDataset(folder, "dev", words, max_images=2)
    assert (len(dataset.features), len(dataset), dataset.captions_per_image) == (2, 4, 2)
    assert dataset.ids == ["x", "y"]
    assert len(dataset.encoded) == 4
    assert len(PrecomputedDataset(folder, "dev", max_images=99).features) == 3


def test_windows_line_ends_and_odd_characters(folder):
    captions = ["café\r", "a\rb\u2028c\x0bd\r", "“quoted”\r", "日本\r", "e\r", " f \r"]
    write_split(folder, "dev", np.zeros((3, 1, 1)), captions)
    (folder / "dev_caps.txt").write_bytes("\n".join(captions).encode())  # and no end of line at the end
    expected = ["café", "a\rb\u2028c\x0bd", "“quoted”", "日本", "e", " f "]
    assert PrecomputedDataset(folder, "dev").captions == expected


# ------------------------------------------------------------------------------------------------ batches


def test_a_batch_pads_captions_and_keeps_true_lengths(folder, words):
    dataset = PrecomputedDataset(folder, "dev", words)
    batch = dataset.batch([4, 0, 1, 5])
    assert batch.features.shape == (4, 4, 5)
    assert batch.tokens.dtype == batch.lengths.dtype == torch.int64
    assert batch.tokens.tolist() == [[1, 4, 3, 3, 3, 2], [1, 4, 5, 2, 0, 0], [1, 4, 5, 3, 3, 2], [1, 3, 2, 0, 0, 0]]
    assert batch.lengths.tolist() == [6, 4, 6, 3]
    assert batch.image_ids.tolist() == [2, 0, 0, 2]


def test_lengths_stay_on_the_cpu(folder, words):
    batch = PrecomputedDataset(folder, "dev", words).batch([0]).to(torch.device("meta"))
    assert isinstance(batch, Batch)
    assert batch.lengths.device.type == "cpu"
    assert {batch.features.device.type, batch.tokens.device.type, batch.image_ids.device.type} == {"meta"}


def test_pad_captions_takes_lists_and_tensors():
    tokens, lengths = pad_captions([[1, 2], torch.tensor([1, 7, 2])])
    assert tokens.tolist() == [[1, 2, 0], [1, 7, 2]]
    assert lengths.tolist() == [2, 3]


def test_loading_in_other_processes(tmp_path):
    folder = write_tiny(tmp_path)
    dataset = PrecomputedDataset(folder, "dev", build_vocabulary(folder))
    alone, beside = (
        list(DataLoader(range(len(dataset)), 5, collate_fn=dataset.batch, num_workers=workers)) for workers in (0, 1)
    )  # fmt: skip
    assert len(alone) == len(beside) == 5
    for one, other in zip(alone, beside, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


# ------------------------------------------------------------------------------------------------ ids, splits, digest


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (None, ["0", "1", "2"]),
        ("x.jpg\ny.jpg\nz.jpg\n", ["x.jpg", "y.jpg", "z.jpg"]),
        ("x.jpg\nx.jpg\ny.jpg\ny.jpg\nz.jpg\nz.jpg\n", ["x.jpg", "y.jpg", "z.jpg"]),
    ],
)
def test_ids_for_each_image_or_each_caption(folder, ids, expected):
    if ids:
        (folder / "dev_ids.txt").write_text(ids)
    assert PrecomputedDataset(folder, "dev").ids == expected


def test_ids_of_captions_that_are_numbered(folder):
    (folder / "dev_ids.txt").write_text("x.jpg#0\nx.jpg#1\ny.jpg#0\ny.jpg#1\nz.jpg#0\nz.jpg#1\n")
    assert PrecomputedDataset(folder, "dev").ids == ["x.jpg", "y.jpg", "z.jpg"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("x y z x y z", "line 2: found 'y', expected 'x' as in line 1; the 2 captions of an image stand together"),
        ("x x y z z y", "line 4: found 'z', expected 'y' as in line 3; .* here and in dev_caps.txt"),
        ("x x y y z x", "line 6: found 'x', expected 'z' as in line 5"),
        ("x.jpg#0 y.jpg#0 z.jpg#0 x.jpg#1 y.jpg#1 z.jpg#1", "line 2: found 'y.jpg', expected 'x.jpg'"),
        ("x x y y x x", r"found 'x' more than once, for images 0 and 2 \(counted from 0\), expected one row"),
    ],
)
def test_ids_that_do_not_stand_as_the_captions_do(folder, ids, message):
    """Caption-major files, and lines that were exchanged: nothing else would tell, and every score would be wrong."""
    (folder / "dev_ids.txt").write_text("\n".join(ids.split()))
    with pytest.raises(UWMLError, match=f"dev_ids.txt: {message}"):
        PrecomputedDataset(folder, "dev")


def test_evaluation_split(folder):
    assert evaluation_split(folder) == "dev"
    write_split(folder, "test", np.zeros((1, 1, 1)), ["a"])
    assert evaluation_split(str(folder)) == "test"


def test_the_vocabulary_is_of_train_and_dev(folder):
    write_split(folder, "train", np.zeros((1, 1, 1)), ["a zebra"] * 3)
    write_split(folder, "test", np.zeros((1, 1, 1)), ["a whale"] * 9)
    with (folder / "dev_caps.txt").open("a") as file:
        file.write("zebra\n")
    words = build_vocabulary(folder).words
    assert "zebra" in words  # three times in train, once in dev
    assert "whale" not in words


def test_optional_array(folder):
    dataset = PrecomputedDataset(folder, "dev")
    assert dataset.optional_array("boxes", 3) is None
    np.save(folder / "dev_boxes.npy", np.ones((3, 4, 4)))
    assert dataset.optional_array("boxes", 3).shape == (3, 4, 4)
    with pytest.raises(UWMLError, match="dev_boxes.npy: found float64"):
        dataset.optional_array("boxes", 2)


@pytest.mark.parametrize(("name", "shape"), [("boxes", (4, 4, 4)), ("boxes", (2, 4, 4)), ("pictures", (4, 2, 2, 3))])
def test_boxes_and_pictures_are_of_the_same_images(folder, name, shape):
    np.save(folder / f"dev_{name}.npy", np.ones(shape))
    dataset = PrecomputedDataset(folder, "dev")
    message = f"dev_{name}.npy: found {shape[0]} rows, expected the 3 of dev_ims.npy"
    for look in (dataset.scan, lambda: dataset.optional_array(name, len(shape))):
        with pytest.raises(UWMLError, match=message):
            look()


def test_boxes_of_the_images_that_are_kept(folder):
    np.save(folder / "dev_boxes.npy", np.arange(3)[:, None, None] * np.ones((3, 4, 4)))
    dataset = PrecomputedDataset(folder, "dev")
    dataset.keep(1, 3)
    assert dataset.optional_array("boxes", 3)[:, 0, 0].tolist() == [1, 2]


def test_the_fingerprint_follows_captions_and_features(folder):
    seen = {fingerprint(folder)}

    def changed(change):
        change()
        new = fingerprint(folder)
        assert new == fingerprint(str(folder))
        assert new not in seen
        seen.add(new)

    features = np.load(folder / "dev_ims.npy")
    features[2, 3, 4] += 1
    changed(lambda: np.save(folder / "dev_ims.npy", features))
    changed(lambda: np.save(folder / "dev_ims.npy", features.astype(np.float64)))
    changed(lambda: (folder / "dev_caps.txt").write_text("\n".join(["a god", *CAPTIONS[1:]])))
    changed(lambda: write_split(folder, "test", features, CAPTIONS))
    changed(lambda: write_split(folder, "train", features, CAPTIONS))
    (folder / "dev_ids.txt").write_text("names of images decide nothing")
    (folder / "notes.txt").write_text("nor do notes")
    assert fingerprint(folder) in seen


def test_the_fingerprint_of_a_folder_without_captions(folder):
    (folder / "dev_caps.txt").unlink()
    with pytest.raises(UWMLError, match="dev_caps.txt: no such file"):
        fingerprint(folder)


# ------------------------------------------------------------------------------------------------ what is refused


def bad_features(array):
    return lambda folder: np.save(folder / "dev_ims.npy", array, allow_pickle=True)


def truncated(size):
    def damage(folder):
        path = folder / "dev_ims.npy"
        path.write_bytes(path.read_bytes()[:size])

    return damage


def overwritten(name, content):
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "file", "message"),
    [
        (lambda folder: (folder / "dev_ims.npy").unlink(), "dev_ims.npy", "no such file"),
        (lambda folder: (folder / "dev_caps.txt").unlink(), "dev_caps.txt", "no such file"),
        (lambda folder: (folder / "dev_ids.txt").mkdir(), "dev_ids.txt", "not readable"),
        (truncated(200), "dev_ims.npy", "not readable as a .npy array"),
        (truncated(60), "dev_ims.npy", "not readable as a .npy array"),
        (truncated(0), "dev_ims.npy", "found an empty file, expected an array"),
        (overwritten("dev_ims.npy", b"<html>404</html>"), "dev_ims.npy", "is a web page, not the file itself"),
        (overwritten("dev_ims.npy", b"\x93NUMPY\x01\x00\x04\x00{'(\n"), "dev_ims.npy", "not readable as a .npy array"),
        (bad_features(np.array([[["x", None]]], dtype=object)), "dev_ims.npy", "not readable as a .npy array"),
        (bad_features(np.zeros(3)), "dev_ims.npy", r"found float64 \(3,\), expected real .* in 2 or 3 dimensions"),
        (bad_features(np.zeros((3, 1, 1, 5))), "dev_ims.npy", r"found float64 \(3, 1, 1, 5\), expected real numbers"),
        (bad_features(np.zeros((3, 4, 5, 1))), "dev_ims.npy", "found float64"),
        (bad_features(np.zeros((3, 4, 5), dtype=complex)), "dev_ims.npy", "found complex128"),
        (bad_features(np.zeros((3, 4, 5), dtype=bool)), "dev_ims.npy", "found bool"),
        (bad_features(np.full((3, 4, 5), "a")), "dev_ims.npy", "found <U1"),
        (bad_features(np.zeros((0, 4, 5))), "dev_ims.npy", r"found float64 \(0, 4, 5\), expected .* at least one"),
        (bad_features(np.zeros((3, 0, 5))), "dev_ims.npy", r"found float64 \(3, 0, 5\), expected .* at least one"),
        (bad_features(np.zeros((4, 4, 5))), "dev_caps.txt", "found 6 captions for the 4 images of dev_ims.npy"),
        (bad_features(np.zeros((7, 4, 5))), "dev_caps.txt", "found 6 captions for the 7 images"),
        (overwritten("dev_caps.txt", b"a\nb\n \nd\ne\nf\n"), "dev_caps.txt", "line 3 is empty"),
        (overwritten("dev_caps.txt", b"a\nb\nc\nd\ne\nf\n\n"), "dev_caps.txt", "found 7 captions"),
        (overwritten("dev_caps.txt", b"a\nb\n" + b"x " * 2501 + b"\nd\ne\nf\n"), "dev_caps.txt", "line 3 has 5,002"),
        (overwritten("dev_caps.txt", b"a\nb\nc\nd\n\0e\nf\n"), "dev_caps.txt", "line 5 holds a NUL character"),
        (overwritten("dev_caps.txt", b""), "dev_caps.txt", "found 1 captions"),
        (overwritten("dev_caps.txt", b"a\nb\nc\nd\ncaf\xe9\nf\n"), "dev_caps.txt", "not readable as UTF-8 text"),
        (overwritten("dev_ids.txt", b"x\ny\n"), "dev_ids.txt", "found 2 ids, expected 3, one for each image"),
        (overwritten("dev_ids.txt", b"\xff\n"), "dev_ids.txt", "not readable as UTF-8 text"),
    ],
)
def test_bad_input_is_refused_by_name(folder, damage, file, message):
    damage(folder)
    with pytest.raises(UWMLError, match=message) as error:
        PrecomputedDataset(folder, "dev")
    assert str(error.value).startswith(f"{folder / file}: ")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_features_that_are_not_finite_are_found(folder, value):
    path = folder / "dev_ims.npy"
    features = np.load(path).astype(np.float64)
    features[2, 3, 1] = value
    np.save(path, features)
    dataset = PrecomputedDataset(folder, "dev")
    dataset.images(0, 2)
    for look in (dataset.scan, lambda: dataset.scan(block=1), lambda: dataset.images(1, 3)):
        with pytest.raises(UWMLError, match=r"dev_ims.npy: image 2 \(counted from 0\) holds NaN"):
            look()


def test_the_largest_finite_features_are_no_infinity(folder):
    write_split(folder, "dev", np.full((3, 4, 5), np.finfo(np.float32).max), CAPTIONS)
    assert PrecomputedDataset(folder, "dev").images(0, 3).isfinite().all()


def test_encoded_captions_are_a_sequence_of_lists(folder, words):
    dataset = PrecomputedDataset(folder, "dev", words)
    lists = [words.encode(caption) for caption in CAPTIONS]
    assert list(dataset.encoded) == lists
    assert len(dataset.encoded) == 6
    assert dataset.encoded[1] == dataset.encoded[-5] == lists[1]
    for chosen in (slice(4), slice(1, None, 2), slice(None, None, -1), slice(5, 99)):
        assert dataset.encoded[chosen] == lists[chosen]
    for outside in (6, -7):
        with pytest.raises(IndexError):
            dataset.encoded[outside]


def test_encoded_captions_take_four_bytes_a_word(folder, words):
    write_split(folder, "dev", np.zeros((1, 1, 1)), ["a dog runs fast"] * 10_000)
    dataset = PrecomputedDataset(folder, "dev", words)
    before = len(pickle.dumps(dataset))
    assert len(dataset.encoded) == 10_000
    assert len(pickle.dumps(dataset)) - before < 10_000 * (6 * 4 + 8) + 1000


def test_a_byte_order_mark_is_no_part_of_the_first_caption(folder):
    path = folder / "dev_caps.txt"
    before = PrecomputedDataset(folder, "dev").captions
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert PrecomputedDataset(folder, "dev").captions == before


def test_a_test_split_without_its_features_is_not_passed_over(folder):
    (folder / "test_caps.txt").write_text("a caption\n")
    with pytest.raises(UWMLError, match="test_ims.npy: no such file, though there is test_caps.txt"):
        evaluation_split(folder)
    (folder / "test_caps.txt").unlink()
    assert evaluation_split(folder) == "dev"
    (folder / "test_ims.npy").symlink_to("nowhere")
    with pytest.raises(UWMLError, match="test_ims.npy"):
        evaluation_split(folder)


def test_an_npz_under_the_name_of_a_npy(folder):
    with (folder / "dev_ims.npy").open("wb") as file:
        np.savez(file, a=np.zeros((3, 4, 5)))
    with pytest.raises(UWMLError, match=r"dev_ims.npy: not readable as a .npy array .*got b'PK"):
        PrecomputedDataset(folder, "dev")


def test_captions_need_a_vocabulary_only_to_be_encoded(folder):
    dataset = PrecomputedDataset(folder, "dev")
    assert dataset.images(0, 1).shape == (1, 4, 5)
    with pytest.raises(UWMLError, match="only with a vocabulary"):
        dataset[0]


def test_a_pickled_data_set_holds_no_features(folder, words):
    dataset = PrecomputedDataset(folder, "dev", words, max_images=2)
    content = pickle.dumps(dataset)
    again = pickle.loads(content)
    assert isinstance(again.features, np.memmap)
    assert np.array_equal(again.features, dataset.features)
    assert len(content) < 2000 + 10 * len(CAPTIONS)


@pytest.fixture
def repeated(folder):
    """The same three images as the release stores its dev and test splits: once for each of their two captions."""
    features = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    write_split(folder, "dev", features.repeat(2, axis=0), CAPTIONS)
    (folder / "dev_ids.txt").write_text("one\none\ntwo\ntwo\nthree\nthree\n")
    return folder


def test_an_image_stored_once_for_each_caption_is_taken_once(repeated, words):
    dataset = PrecomputedDataset(repeated, "dev", words)
    assert isinstance(dataset.features, np.memmap)
    assert (dataset.features.shape, dataset.captions_per_image) == ((3, 4, 5), 2)
    assert dataset.ids == ["one", "two", "three"]
    assert torch.equal(dataset.images(0, 3), torch.arange(60.0).view(3, 4, 5))
    assert [dataset[index][2] for index in range(6)] == [0, 0, 1, 1, 2, 2]
    few = PrecomputedDataset(repeated, "dev", words, max_images=2, regions=3)
    assert few.ids == ["one", "two"] and len(few) == 4
    assert np.array_equal(pickle.loads(pickle.dumps(few)).features, dataset.features[:2, :3])


def test_rows_of_one_image_that_differ_are_refused(repeated):
    features = np.load(repeated / "dev_ims.npy")
    features[-1, 0, 0] += 1
    np.save(repeated / "dev_ims.npy", features)
    with pytest.raises(UWMLError, match="dev_ims.npy: rows 4 and 5 differ, expected one image, for dev_ids.txt says"):
        PrecomputedDataset(repeated, "dev")


def test_rows_of_one_image_need_ids(repeated):
    (repeated / "dev_ids.txt").unlink()
    with pytest.raises(UWMLError, match="dev_ids.txt: no such file, though rows 0 and 1 of dev_ims.npy are one image"):
        PrecomputedDataset(repeated, "dev")


def test_every_row_of_an_image_is_compared_in_a_scan(repeated):
    PrecomputedDataset(repeated, "dev").scan(block=2)
    features = np.load(repeated / "dev_ims.npy")
    features[3] += 1
    np.save(repeated / "dev_ims.npy", features)
    dataset = PrecomputedDataset(repeated, "dev")
    with pytest.raises(UWMLError, match="dev_ims.npy: rows 2 and 3 differ, expected one image, for dev_ids.txt has"):
        dataset.scan(block=1)
    dataset.keep(0, 1)
    dataset.scan()


@pytest.mark.parametrize("ids", ["one\none\ntwo\ntwo\ntwo\ntwo\n", "one\ntwo\nthree\none\ntwo\nthree\n"])
def test_ids_that_repeat_in_another_way_are_refused(repeated, ids):
    (repeated / "dev_ids.txt").write_text(ids)
    with pytest.raises(UWMLError, match="dev_ids.txt: found .* more than once, for images .*, expected one row"):
        PrecomputedDataset(repeated, "dev")


def test_ids_that_are_the_captions_own_tell_nothing_of_images(folder):
    (folder / "dev_ids.txt").write_text("".join(f"{number}\n" for number in range(6)))
    assert PrecomputedDataset(folder, "dev").ids == ["0", "2", "4"]


def test_one_id_for_two_images_is_refused(folder):
    (folder / "dev_ids.txt").write_text("one\ntwo\none\n")
    with pytest.raises(
        UWMLError,
        match="dev_ids.txt: found 'one' more than once, for images 0 and 2 .counted from 0., expected one row",
    ):
        PrecomputedDataset(folder, "dev")


def test_real_features(shared):
    dev = PrecomputedDataset(shared / "data/f8k_precomp", "dev")
    assert dev.features.shape == (1000, 36, 128)
    assert dev.features.dtype == np.int8
    assert (dev.captions_per_image, len(dev)) == (5, 5000)
    assert dev.ids[0] == "2090545563_a4e66ec76b.jpg"
    assert evaluation_split(shared / "data/f8k_precomp") == "dev"
    assert len(fingerprint(shared / "data/f8k_precomp")) == 16
    train = PrecomputedDataset(shared / "data/f8k_precomp", "train")
    assert twin_captions(train.sentences.tolist(), 5) == 277  # as the README says
