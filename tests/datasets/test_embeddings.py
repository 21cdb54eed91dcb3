"""Two matrices of embeddings: what is read, what is refused, and the example."""

import numpy as np
import pytest
import torch

from tests.tiny import write_tiny
from uwml_lib.datasets import PrecomputedDataset
from uwml_lib.datasets.embeddings import Embeddings, example_embeddings, load_embeddings
from uwml_lib.support.errors import UWMLError


def files(folder, images, captions):
    for name, rows in (("images", images), ("captions", captions)):
        np.save(folder / f"{name}.npy", rows)
    return folder / "images.npy", folder / "captions.npy"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_rows_as_they_are(tmp_path, dtype):
    images, captions = np.arange(6, dtype=dtype).reshape(2, 3), np.arange(24, dtype=dtype).reshape(6, 4)
    pairs = load_embeddings(*files(tmp_path, images, captions))
    assert pairs.captions_per_image == 3
    assert pairs.images.dtype == pairs.captions.dtype == torch.float32
    assert pairs.images.tolist() == images.tolist()
    assert pairs.captions.tolist() == captions.tolist()
    assert pairs.part(1, 2).images.tolist() == images[1:].tolist()
    assert pairs.part(1, 2).captions.tolist() == captions[3:].tolist()


def spoilt(rows, value):
    rows = rows.copy()
    rows[3, 1] = value
    return rows


GOOD = np.ones((4, 3))


@pytest.mark.parametrize(
    ("images", "captions", "message"),
    [
        (GOOD, np.ones((7, 3)), "captions.npy: found 7 rows, expected a multiple of the 4 of .*images.npy"),
        (GOOD, np.ones((3, 3)), "captions.npy: found 3 rows, expected a multiple of the 4"),
        (spoilt(GOOD, np.nan), GOOD, "images.npy: row 3 .counted from 0. holds NaN, infinity or what is too large"),
        (GOOD, spoilt(GOOD, np.inf), "captions.npy: row 3"),
        (GOOD, spoilt(GOOD, 1e300), "captions.npy: row 3"),
        (np.ones(4), GOOD, "images.npy: found float64 .4,., expected real numbers, at least one, in 2 dimensions"),
        (GOOD, np.ones((4, 2, 3)), "captions.npy: found float64 .4, 2, 3."),
        (np.ones((0, 3)), GOOD, "images.npy: found float64 .0, 3."),
        (GOOD, np.array([["a"] * 3] * 4), "captions.npy: found <U1"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, images, captions, message):
    with pytest.raises(UWMLError, match=message):
        load_embeddings(*files(tmp_path, images, captions))


def test_a_missing_file_is_named(tmp_path):
    images, captions = files(tmp_path, GOOD, GOOD)
    captions.unlink()
    with pytest.raises(UWMLError, match="captions.npy"):
        load_embeddings(images, captions)


def test_standardised_by_another_part():
    generator = torch.Generator().manual_seed(0)
    train, test = (Embeddings(torch.rand(9, 3, generator=generator), torch.ones(9, 2), 1) for _ in range(2))
    found = test.standardised(by=train)
    for column in range(3):
        values = train.images[:, column]
        expected = (test.images[:, column] - values.mean()) / values.std()
        torch.testing.assert_close(found.images[:, column], expected, atol=1e-4, rtol=1e-4)
    assert (found.captions == 0).all()


def test_the_example_is_of_the_images_and_words(tmp_path):
    folder = write_tiny(tmp_path)
    dataset = PrecomputedDataset(folder, "train")
    (pairs,) = example_embeddings(dataset, dim=4)
    torch.testing.assert_close(pairs.images, torch.from_numpy(np.array(dataset.features)).mean(dim=1))
    assert pairs.captions.shape == (len(dataset), 4)
    same = [k for k, caption in enumerate(dataset.captions) if caption == dataset.captions[0]]
    assert len(same) > 1
    torch.testing.assert_close(pairs.captions[same], pairs.captions[:1].expand(len(same), -1))
    torch.testing.assert_close(pairs.captions, example_embeddings(dataset, dim=4)[0].captions)
    assert 4 < example_embeddings(dataset)[0].captions.shape[1] < 64  # it has fewer words


def test_the_example_is_fitted_to_the_first_split_alone(tmp_path):
    folder = write_tiny(tmp_path)
    splits = [PrecomputedDataset(folder, split) for split in ("train", "dev", "test")]
    before = example_embeddings(*splits, dim=4)
    assert [len(part.images) for part in before] == [40, 12, 14]
    splits[2].captions = ["quite another caption"] * len(splits[2])
    after = example_embeddings(*splits, dim=4)
    for one, other in zip(before[:2], after[:2], strict=True):
        assert torch.equal(one.captions, other.captions)
    assert (after[2].captions == 0).all()  # no word of these is known
