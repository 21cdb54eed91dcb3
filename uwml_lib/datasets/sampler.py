"""Batches without duplicates: no two captions of one image, and no sentence twice."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets.precomputed import PrecomputedDataset
from uwml_lib.support.errors import expect


class NoDuplicatesBatchSampler(Sampler[list[int]]):
    """Batches, for `DataLoader(batch_sampler=...)`, in which no two items have the same image, or the same sentence.

    keys: name -> what no two items of a batch may have in common, (n,) whole numbers or strings in a list, an array or
    a tensor: `{"image": image_ids, "sentence": captions}`. batch_size: items of a full batch, at least 1. drop_last:
    leave out the items that fill no batch; else they come last, in shorter batches, and every item is visited once. Of
    an image with more captions than there are full batches, each of these has one at most; the others are left over.

    Batches are random, and depend on keys, batch_size, seed and the number of the epoch alone. At most n // batch_size
    are full: with one key as many as can be, with several as many as are found; `len` counts those of the epoch. Call
    `set_epoch` before every pass; without it, all passes are the same. Raises UWMLError for keys that do not fit and,
    with drop_last, if not a single batch can be filled.
    """

    def __init__(self, keys: Mapping[str, Any], batch_size: int, drop_last: bool = False, seed: int = 0) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0)):
            whole = isinstance(value, Integral) and value >= least
            expect(whole, name, repr(value), f"a whole number, at least {least}")
        named = isinstance(keys, Mapping) and len(keys) > 0
        expect(named, "keys", repr(keys)[:80], "a dict of at least one name with its values")
        columns = {name: _values(name, values) for name, values in keys.items()}
        first, n = next((name, len(values)) for name, values in columns.items())
        for name, values in columns.items():
            expect(len(values) == n, f"keys: {name!r}", f"{len(values)} values", f"{n}, as many as of {first!r}")
        self.names, self.batch_size, self.drop_last, self.seed, self.epoch = [*keys], batch_size, drop_last, seed, 0
        numbers: dict[tuple[str, int | str], int] = {}  # one for every value of every key
        numbered = ([numbers.setdefault((name, x), len(numbers)) for x in xs] for name, xs in columns.items())
        self._keys = [*zip(*numbered, strict=True)]
        self.batches  # noqa: B018 (raises if there are none)

    def set_epoch(self, epoch: int) -> None:
        """Let the next passes be those of an epoch, counted from 0."""
        whole = isinstance(epoch, Integral) and epoch >= 0
        expect(whole, "epoch", repr(epoch), "a whole number, at least 0")
        if epoch != self.epoch:
            self.epoch = epoch
            self.__dict__.pop("batches", None)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            yield [*batch]  # a copy, for accelerate may lengthen the list that it gets

    @cached_property
    def batches(self) -> list[list[int]]:
        """The numbers of the items in each batch of the epoch."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self._keys))
        dealt, beyond = self._first_fit(order.tolist(), most=len(order) // self.batch_size + 1)
        batches, left = self._fill_up(dealt, beyond)
        if not self.drop_last:
            batches += sorted(self._first_fit(left, most=len(left))[0], key=len, reverse=True)
        expected = f"at most {max(map(len, dealt))}, for no more items differ in {' and '.join(self.names)}"
        expect(batches, "batch_size", self.batch_size, expected)
        return batches

    def _first_fit(self, items: Iterable[int], most: int) -> tuple[list[list[int]], list[int]]:
        """Put each item into the first batch with room that comes after all with a key of it.

        Returns the batches and, if there would be more than `most`, the items of the others.
        """
        batches, beyond = list[list[int]](), list[int]()
        next_without: dict[int, int] = {}  # key -> the batch after the last one that has it
        first_open = 0
        for item in items:
            place = max(first_open, *(next_without.get(key, 0) for key in self._keys[item]))
            while place < len(batches) and len(batches[place]) == self.batch_size:
                place += 1
            if place >= most:
                beyond.append(item)
                continue
            if place == len(batches):
                batches.append([])
            batches[place].append(item)
            next_without.update(dict.fromkeys(self._keys[item], place + 1))
            while first_open < len(batches) and len(batches[first_open]) == self.batch_size:
                first_open += 1
        return batches, beyond

    def _fill_up(self, batches: list[list[int]], beyond: list[int]) -> tuple[list[list[int]], list[int]]:
        """Make further full batches of the items that are in no full one; return all full ones, and what is left.

        An item that does not go with the batch may go with another one, and one of that with this batch: they change
        places. With one key, a batch that cannot be filled even so can be filled in no other way.
        """
        full = [(batch, self._keys_of(batch)) for batch in batches if len(batch) == self.batch_size]
        left = [item for batch in batches if len(batch) < self.batch_size for item in batch] + beyond
        while len(left) >= self.batch_size:
            coming, batch, has, unfit = iter(left), list[int](), set[int](), list[int]()
            for item in coming:
                if has.isdisjoint(self._keys[item]):
                    batch.append(item)
                    has.update(self._keys[item])
                    if len(batch) == self.batch_size:
                        break
                else:
                    unfit.append(item)
            left, short = [*coming], len(batch) < self.batch_size
            in_all = set.intersection(*(held for _, held in full)) if full and short else set[int]()  # in vain
            for item in unfit:
                wanted = len(batch) < self.batch_size and in_all.isdisjoint(self._keys[item])
                if wanted and (other := self._exchange(item, has, full)) is not None:
                    batch.append(other)
                    has.update(self._keys[other])
                else:
                    left.append(item)
            if len(batch) < self.batch_size:
                left += batch
                break
            full.append((batch, has))
        return [batch for batch, _ in full], left

    def _exchange(self, item: int, has: set[int], full: list[tuple[list[int], set[int]]]) -> int | None:
        """Put an item into a full batch in place of one with none of the keys in `has`; return that one, if any."""
        for batch, held in full:
            if held.isdisjoint(self._keys[item]):
                for place, other in enumerate(batch):
                    if has.isdisjoint(self._keys[other]):
                        batch[place] = item
                        held.difference_update(self._keys[other])
                        held.update(self._keys[item])
                        return other
        return None

    def _keys_of(self, items: Iterable[int]) -> set[int]:
        return {key for item in items for key in self._keys[item]}


def _values(name: str, values: Any) -> list[int | str]:
    """Return the values of a key; raises UWMLError for what are no whole numbers or strings."""
    values = values.tolist() if hasattr(values, "tolist") else values
    where, expected = f"keys: {name!r}", "a list, an array or a tensor (n,) of whole numbers or strings"
    expect(isinstance(values, Sequence) and not isinstance(values, str), where, type(values).__name__, expected)
    expect(len(values), where, "no values", "at least one")
    for kind in {*map(type, values)}:
        expect(issubclass(kind, Integral | str), where, f"values of type {kind.__name__}", expected)
    return list(values)


def training_sampler(config: ExperimentConfig, dataset: PrecomputedDataset) -> NoDuplicatesBatchSampler | None:
    """What makes batches of training pairs without duplicates, or None if they are to be shuffled only.

    Raises UWMLError if the data have too few images, or sentences, for batches of this size.
    """
    if config.batches == "shuffled":
        return None
    images = np.arange(len(dataset)) // dataset.captions_per_image
    keys = {"image": images, "sentence": dataset.sentences}
    return NoDuplicatesBatchSampler(keys, config.batch_size, drop_last=True, seed=config.seed)
