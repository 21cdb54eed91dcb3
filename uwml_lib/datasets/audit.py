"""What to know of a data set before its numbers are believed: copies across splits, twins, rows that say nothing."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from uwml_lib.datasets.batches import sentence
from uwml_lib.datasets.precomputed import PrecomputedDataset
from uwml_lib.support import paths
from uwml_lib.support.files import lock, read_sealed_json, write_sealed_json
from uwml_lib.support.progress import counted

NEAR = 0.1
"""Images are nearly equal if they differ by at most this share of their norm, and their mean regions by this share of
what the mean regions of different images do.
"""
LONG = 100
"""Words; a longer caption is two, or a page."""
PROJECTED = 16
"""Numbers that a mean region is projected to, at random, for the search."""
BLOCK, ROWS = 256, 128
"""Images read, and images compared with all others, at once."""
MANY_TWINS = 0.1
"""Share of a split's captions from which twins are worth a warning; data sets of photographs have 1 or 2 %."""


@dataclass(frozen=True)
class Audit:
    """What was found: how many of what in each split, and a sentence about each finding that matters.

    counts: split -> images, captions, twins, ... ; of equal_images, near_images and equal_captions (images that have
    the very captions of another) a number for each split that they are compared with, their own included.
    """

    counts: dict[str, dict[str, Any]]
    warnings: list[str]

    def __str__(self) -> str:
        """The counts that are not all zero as a table, and the warnings."""
        rows = {what: [str(count[key]) for count in self.counts.values()] for key, what in PLAIN.items()}
        for key, what in COMPARED.items():
            for other in self.counts:
                if any(cells := [str(count.get(key, {}).get(other, "")) for count in self.counts.values()]):
                    rows[f"{what} {other}"] = cells
        rows = {what: cells for what, cells in rows.items() if {*cells} - {"", "0"}}
        width = max(map(len, rows))
        lines = ["".join(f"{cell:>10}" for cell in cells) for cells in ([*self.counts], *rows.values())]
        table = [f"{what:<{width}}{line}" for what, line in zip(("", *rows), lines, strict=True)]
        warned = [f"Warning: {warning}" for warning in self.warnings] or ["nothing to warn of"]
        return "\n".join([*table, *warned])


PLAIN = {
    "images": "images", "captions": "captions", "twins": "captions that another image has too",
    "constant": "images whose numbers are all the same", "zero_regions": "images with regions of zeros",
    "long": f"captions of more than {LONG} words", "wordless": "captions without a word",
}  # fmt: skip
COMPARED = {
    "equal_images": "images equal to one in", "near_images": "images nearly equal to one in",
    "equal_captions": "images with all captions of one in",
}  # fmt: skip
"""Of a split's own images, the earlier ones count."""


class _Seen(NamedTuple):
    """One split: of each image a digest and its projected mean region (n, at most 16); of each caption its sentence.

    The digest is of the sum of the regions and of each one's extremes: ten times as fast as that of all numbers.
    """

    dataset: PrecomputedDataset
    digests: list[bytes]
    means: Tensor
    sentences: list[Any]
    counts: dict[str, Any]

    @property
    def captions(self) -> list[tuple[Any, ...]]:
        """Of each image, its sentences in one order."""
        K = self.dataset.captions_per_image
        return [tuple(sorted(self.sentences[start : start + K])) for start in range(0, len(self.sentences), K)]


def audit(splits: Sequence[PrecomputedDataset]) -> Audit:
    """Compare the images and captions of splits with each other; train comes first.

    Reads each file of features once, and the images that look alike once more. Raises UWMLError as
    `PrecomputedDataset.scan` does.
    """
    seen = [_look(split) for split in splits]
    spread = float((seen[0].means - seen[0].means.mean(dim=0)).square().sum(dim=1).mean().sqrt())
    warnings: list[str] = []
    for number, one in enumerate(seen):
        name = one.dataset.split
        for key, what in PLAIN.items():
            least = MANY_TWINS * len(one.sentences) if key == "twins" else 0
            if key not in ("images", "captions") and one.counts[key] > least:
                warnings.append(f"{name}: {what}: {one.counts[key]:,}")
        for other in seen[: number + 1]:
            found = _compare(one, other, NEAR * spread)
            for key, count in found.items():
                one.counts.setdefault(key, {})[other.dataset.split] = count
            warnings += _warnings(one, other, found)
    return Audit({one.dataset.split: one.counts for one in seen}, warnings)


def save_audit(found: Audit, data: str) -> None:
    """Keep an audit in reports/audits; data: the fingerprint of what it is of."""
    with lock(path := paths.AUDITS / f"{data}.json"):
        write_sealed_json(path, asdict(found))


def audit_of(data: str) -> dict[str, Any] | None:
    """Return the audit that was made of the data with this fingerprint; None without one."""
    path = paths.AUDITS / f"{data}.json"
    return read_sealed_json(path) if path.exists() else None


def twin_captions(sentences: Sequence[Any], captions_per_image: int) -> int:
    """Count the captions whose very sentence, or vector, another image has too; sentences: image-major."""
    pairs = {(said, number // captions_per_image) for number, said in enumerate(sentences)}
    images = Counter(said for said, _ in pairs)
    return sum(images[said] > 1 for said in sentences)


def _look(dataset: PrecomputedDataset) -> _Seen:
    """Read a split once."""
    dim = dataset.feature_dim
    generator = np.random.default_rng(0)
    directions = np.eye(dim) if dim <= PROJECTED else generator.normal(size=(dim, PROJECTED)) / PROJECTED**0.5
    digests, means = [], []
    counts: dict[str, Any] = {"images": len(dataset.features), "captions": len(dataset)}
    counts |= {"twins": 0, "constant": 0, "zero_regions": 0}
    for numbers, features in dataset.blocks(BLOCK):
        regions = dataset.counts(numbers)
        sums, highs, lows = features.numpy().sum(axis=1), features.amax(dim=2), features.amin(dim=2)
        means.append((torch.from_numpy(sums) / regions[:, None]).double() @ torch.from_numpy(directions))
        for total, high, low, count in zip(sums, highs, lows, regions.tolist(), strict=True):
            high, low = high[:count], low[:count]
            counts["constant"] += int(high.max() == low.min())
            counts["zero_regions"] += int(((high == 0) & (low == 0)).any())
            digests.append(hashlib.sha256(b"".join(x.tobytes() for x in (total, high.numpy(), low.numpy()))).digest())
    sentences: list[Any] = [sentence(caption) for caption in dataset.captions]
    if dataset.vectors is not None:  # without text, the captions are but numbers
        sentences = [vector.tobytes() for vector in dataset.vectors]
    counts["twins"] = twin_captions(sentences, dataset.captions_per_image)
    counts["long"] = sum(len(caption.split()) > LONG for caption in dataset.captions)
    counts["wordless"] = sum(not any(map(str.isalnum, caption)) for caption in dataset.captions)
    return _Seen(dataset, digests, torch.cat(means), sentences, counts)


def _compare(one: _Seen, other: _Seen, radius: float) -> dict[str, int]:
    """Count the images of a split that one in another split, or an earlier one in the same, equals in some way."""
    first = {digest: number for number, digest in reversed([*enumerate(other.digests)])}
    equal = [
        digest in first and (one is not other or first[digest] < number) for number, digest in enumerate(one.digests)
    ]
    near = _near(one, other, [number for number, found in enumerate(equal) if not found], radius)
    found = {"equal_images": sum(equal), "near_images": near}
    return found if one is other else found | {"equal_captions": sum(map({*other.captions}.__contains__, one.captions))}


def _near(one: _Seen, other: _Seen, numbers: list[int], radius: float) -> int:
    """Count those of some images that are nearly equal to one in another split, or to an earlier one in the same."""
    centre, found = other.means.mean(dim=0), 0
    others = numbers if one is other else [*range(len(other.digests))]
    points, there = ((seen.means[which] - centre).float() for seen, which in ((one, numbers), (other, others)))
    squares = there.square().sum(dim=1)
    for start in range(0, len(numbers), ROWS):
        rows = points[start : start + ROWS]
        stop = start + len(rows) if one is other else len(there)
        distances = torch.addmm(squares[:stop], rows, there[:stop].T, alpha=-2) + rows.square().sum(dim=1)[:, None]
        if one is other:  # earlier images alone
            distances[:, start:].masked_fill_(torch.ones(len(rows), len(rows), dtype=torch.bool).triu(), torch.inf)
        for row in (distances.amin(dim=1) <= (2 * radius) ** 2).nonzero().flatten().tolist():  # projecting changes them
            nearest = int(distances[row].argmin())
            number, other_number = numbers[start + row], others[nearest]
            a, b = one.dataset.images(number, number + 1), other.dataset.images(other_number, other_number + 1)
            found += a.shape == b.shape and bool((a - b).norm() <= NEAR * a.norm())
    return found


def _warnings(one: _Seen, other: _Seen, found: dict[str, int]) -> list[str]:
    name, where, warnings = one.dataset.split, other.dataset.split, []
    if found["equal_images"] and one is not other:
        captions = {*other.sentences}
        shared = sum(said in captions for said in one.sentences)
        copies = f"{counted(found['equal_images'], 'image')} and {counted(shared, 'caption')}"
        warnings.append(f"also in {where}: {copies} of {name}")
        found = found | {"equal_images": 0, "equal_captions": found["equal_captions"] - found["equal_images"]}
    return warnings + [f"{name}: {COMPARED[key]} {where}: {count:,}" for key, count in found.items() if count > 0]
