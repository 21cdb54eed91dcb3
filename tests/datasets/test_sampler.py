"""Batches without duplicates: what is in them, what is left over, and that they are the same again."""

from collections import Counter

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from uwml_lib.datasets import NoDuplicatesBatchSampler
from uwml_lib.support.errors import UWMLError

ITEMS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from("abcdefghijkl"), st.integers(0, 40)), min_size=1)
FEW = st.integers(1, 8)


def assert_no_duplicates(batches, *columns):
    for batch in batches:
        for column in columns:
            assert len({column[item] for item in batch}) == len(batch)


def most_full_batches(groups, size):
    """Of one key: the most batches that the groups can fill, if none counts more than once a batch."""
    counts = Counter(groups).values()
    return max(n for n in range(len(groups) // size + 1) if sum(min(count, n) for count in counts) >= n * size)


@given(ITEMS, FEW, st.integers(1, 3), st.integers(0, 99), st.integers(0, 99))
def test_every_item_once_and_no_batch_with_duplicates(items, size, n_keys, seed, epoch):
    columns = [*zip(*items, strict=True)][:n_keys]
    sampler = NoDuplicatesBatchSampler(dict(zip("abc", columns, strict=False)), size, seed=seed)
    sampler.set_epoch(epoch)
    batches = [*sampler]
    assert len(sampler) == len(batches)
    assert sorted(item for batch in batches for item in batch) == [*range(len(items))]
    assert_no_duplicates(batches, *columns)
    assert [len(batch) for batch in batches] == sorted(map(len, batches), reverse=True)
    assert len(batches[0]) <= size


@given(ITEMS, FEW, st.integers(1, 3), st.integers(0, 99))
def test_without_the_last_every_batch_is_full_and_no_item_comes_twice(items, size, n_keys, seed):
    columns = [*zip(*items, strict=True)][:n_keys]
    keys = dict(zip("abc", columns, strict=False))
    try:
        batches = [*NoDuplicatesBatchSampler(keys, size, drop_last=True, seed=seed)]
    except UWMLError as error:
        assert str(error).startswith(f"batch_size: found {size}, expected at most ")  # noqa: PT017
        assert all(len(batch) < size for batch in NoDuplicatesBatchSampler(keys, size, seed=seed))
        return
    assert {len(batch) for batch in batches} == {size}
    assert max(Counter(item for batch in batches for item in batch).values()) == 1
    assert_no_duplicates(batches, *columns)


@given(st.lists(st.integers(0, 15), min_size=1, max_size=80), FEW, st.integers(0, 99))
def test_with_one_key_no_more_batches_could_be_filled(groups, size, seed):
    possible = most_full_batches(groups, size)
    batches = [*NoDuplicatesBatchSampler({"image": groups}, size, seed=seed)]
    assert sum(len(batch) == size for batch in batches) == possible
    if possible:
        assert len(NoDuplicatesBatchSampler({"image": groups}, size, drop_last=True, seed=seed)) == possible


@given(ITEMS, FEW, st.integers(0, 99), st.integers(0, 99))
def test_the_same_seed_and_epoch_are_the_same_batches(items, size, seed, epoch):
    one, other = (NoDuplicatesBatchSampler({"image": [image for image, *_ in items]}, size, seed=seed) for _ in "ab")
    one.set_epoch(epoch + 1)
    assert len(one) > 0  # and so the batches of that epoch are there
    one.set_epoch(epoch)
    other.set_epoch(epoch)
    assert [*one] == [*other] == [*one]


def test_another_epoch_or_seed_is_other_batches():
    keys = {"image": np.arange(60) // 2}
    sampler, other = (NoDuplicatesBatchSampler(keys, 6, seed=seed) for seed in (0, 1))
    first = [*sampler]
    assert first != [*other]
    sampler.set_epoch(1)
    assert first != [*sampler]
    assert [*other] != [*sampler]
    sampler.set_epoch(0)
    assert first == [*sampler]


def test_the_batches_of_a_seed_stay_what_they_are():
    sampler = NoDuplicatesBatchSampler({"image": [0, 0, 1, 1, 2, 2], "sentence": [*"abacde"]}, 2, seed=3)
    assert [*sampler] == [[2, 5], [4, 1], [3, 0]]
    sampler.set_epoch(1)
    assert [*sampler] == [[1, 2], [0, 4], [5, 3]]


def as_sets(sampler):
    return [set(batch) for batch in sampler]


@pytest.mark.parametrize("seed", range(12))
def test_by_hand(seed):
    """What can be in a batch at all is so little here that any order of the items leads to the same."""
    for kind in (list, tuple, np.array, torch.tensor):
        sampler = NoDuplicatesBatchSampler({"image": kind([0, 0, 0, 1])}, 2, seed=seed)
        (first, *others) = as_sets(sampler)
        assert len(first) == 2 and 3 in first
        assert sorted(map(len, others)) == [1, 1]  # of image 0 there are more captions than full batches
        (only,) = as_sets(NoDuplicatesBatchSampler({"image": kind([0, 0, 0, 1])}, 2, drop_last=True, seed=seed))
        assert len(only) == 2 and 3 in only
    keys = {"image": [0, 0, 1], "sentence": ["a", "b", "b"]}
    assert as_sets(NoDuplicatesBatchSampler(keys, 2, drop_last=True, seed=seed)) == [{0, 2}]


@pytest.mark.parametrize("seed", range(12))
def test_an_item_that_does_not_go_with_the_last_batch_changes_places(seed):
    """If the first batch is of images 0 and 1, both captions of image 2 are left over."""
    sampler = NoDuplicatesBatchSampler({"image": [0, 1, 2, 2]}, 2, drop_last=True, seed=seed)
    assert len(sampler) == 2
    assert_no_duplicates(sampler, [0, 1, 2, 2])


@pytest.mark.parametrize("seed", range(5))
def test_the_last_batch_of_data_that_divide_evenly_is_filled_too(seed):
    images, sentences = np.arange(500) // 5, np.random.default_rng(seed).permutation(500) // 2
    sampler = NoDuplicatesBatchSampler({"image": images, "sentence": sentences}, 50, drop_last=True, seed=seed)
    for epoch in range(5):
        sampler.set_epoch(epoch)
        assert len(sampler) == 10
        assert_no_duplicates(sampler, images, sentences)


def test_one_sentence_everywhere():
    """Half of the items: each batch has it once, and the others fill them. A search for places would take minutes."""
    sentences = np.concatenate([np.zeros(20_000, int), np.arange(1, 20_001)])
    keys = {"image": np.arange(40_000), "sentence": sentences}
    assert len(NoDuplicatesBatchSampler(keys, 100, drop_last=True)) == 20_000 // 99
    assert len(NoDuplicatesBatchSampler(keys, 100)) == 20_000


def test_a_loader_takes_it_and_what_is_handed_out_may_be_changed():
    items = [(image, f"caption {image} {number}") for image in range(4) for number in range(2)]
    sampler = NoDuplicatesBatchSampler({"image": [image for image, _ in items]}, 4)
    loader = DataLoader(items, batch_sampler=sampler, num_workers=1)
    assert len(loader) == 2
    for images, captions in loader:
        assert sorted(images.tolist()) == [0, 1, 2, 3]
        assert len(set(captions)) == 4
    before = [[*batch] for batch in sampler]
    next(iter(sampler)).append(9)
    assert [*sampler] == before


WANTED = r"expected a list, an array or a tensor \(n,\) of whole numbers or strings"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"image": [0, 0, 1]}, 3, True), "batch_size: found 3, expected at most 2, for no more items differ in image"),
        (({"image": [0, 1], "sentence": [*"aa"]}, 2, True), "expected at most 1, .* differ in image and sentence"),
        (({"image": [0, 1]}, 0), "batch_size: found 0, expected a whole number, at least 1"),
        (({"image": [0, 1]}, 2.0), "batch_size: found 2.0, expected a whole number, at least 1"),
        (({"image": [0, 1]}, "2"), "batch_size: found '2', expected a whole number, at least 1"),
        (({"image": [0, 1]}, 2, False, -1), "seed: found -1, expected a whole number, at least 0"),
        (({}, 2), "keys: found {}, expected a dict of at least one name with its values"),
        (([0, 1], 2), "keys: found .0, 1., expected a dict"),
        (({"image": [0, 1], "sentence": ["a"]}, 2), "keys: 'sentence': found 1 values, expected 2, as many as of 'im"),
        (({"image": []}, 2), "keys: 'image': found no values, expected at least one"),
        (({"image": 3}, 2), f"keys: 'image': found int, {WANTED}"),
        (({"image": "dog"}, 2), f"keys: 'image': found str, {WANTED}"),
        (({"image": iter([0, 1])}, 2), f"keys: 'image': found list_iterator, {WANTED}"),
        (({"image": np.zeros((3, 2), int)}, 2), f"keys: 'image': found values of type list, {WANTED}"),
        (({"image": torch.tensor([0.5, np.nan])}, 2), f"keys: 'image': found values of type float, {WANTED}"),
        (({"image": [*torch.arange(2)]}, 2), f"keys: 'image': found values of type Tensor, {WANTED}"),
        (({"image": [0, None]}, 2), f"keys: 'image': found values of type NoneType, {WANTED}"),
    ],
)
def test_what_does_not_fit(arguments, message):
    with pytest.raises(UWMLError, match=message):
        NoDuplicatesBatchSampler(*arguments)


@pytest.mark.parametrize("epoch", [-1, 1.5, None])
def test_an_epoch_is_a_whole_number(epoch):
    with pytest.raises(UWMLError, match="epoch: found .*, expected a whole number, at least 0"):
        NoDuplicatesBatchSampler({"image": [0, 1]}, 2).set_epoch(epoch)


def test_several_processes_share_each_batch():
    sampler = NoDuplicatesBatchSampler({"image": np.arange(40) // 2}, 6, drop_last=True)
    first, second = ([*BatchSamplerShard(sampler, 2, process, split_batches=True)] for process in (0, 1))
    assert len(first) == len(sampler) == 6
    assert [one + other for one, other in zip(first, second, strict=True)] == [*sampler]
