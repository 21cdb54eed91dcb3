"""Any folder in the SCAN layout: `{split}_ims.npy`, `{split}_caps.txt`, `{split}_ids.txt`.

Two files more are this kit's: `{split}_offsets.npy`, where images have unequal numbers of regions, as videos of frames,
and `{split}_caps.npy`, captions as vectors.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from uwml_lib.config import Captions
from uwml_lib.datasets.batches import Batch, EncodedCaptions, pad_captions
from uwml_lib.datasets.sequences import Sequences
from uwml_lib.datasets.vocabulary import Vocabulary
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import load_array, read_lines
from uwml_lib.support.progress import progress

LONGEST_CAPTION = 5000
"""Characters; a longer line is no caption, and padding a batch to its length would fill the memory."""


class PrecomputedDataset(Dataset):
    """Precomputed region features and captions of one split; item k is caption k with its image.

    features: (n_images, regions, dim), memory-mapped, float or integer; one vector an image, (n_images, dim), is one
    region, and where there is a file of offsets images have unequal numbers of regions, see `Sequences`. captions:
    image-major, so caption `captions_per_image * i + k` describes image i. ids: one per image, its number where there
    is no file. Rows that the ids show to be one image, stored once for each of its captions as in SCAN's dev and test
    files, are taken once.
    max_images, regions: take only the first images, and the first regions of each; 0 means all.
    caption_style: how captions are read, see `Vocabulary.encode`; "vectors": from `{split}_caps.npy`, (n_captions,
    dim), and the text is not needed then.
    Raises UWMLError, naming the file, where something is missing, unreadable or does not fit.
    """

    def __init__(
        self,
        folder: Path | str,
        split: str,
        vocabulary: Vocabulary | None = None,
        max_images: int = 0,
        regions: int = 0,
        caption_style: Captions = "text",
    ) -> None:
        self.folder, self.split, self.vocabulary, self.caption_style = Path(folder), split, vocabulary, caption_style
        path = self.folder / f"{split}_ims.npy"
        self.features = load_features(self.folder, split)
        captions_path = self.folder / f"{split}_caps.{'npy' if caption_style == 'vectors' else 'txt'}"
        self.vectors = load_array(self.folder / f"{split}_caps.npy", 2) if caption_style == "vectors" else None
        self.captions = self._read_captions(self.folder / f"{split}_caps.txt")
        self._copies = self._rows_per_image()
        self.features = self.features[:: self._copies]
        n_images, n_captions = len(self.features), len(self.captions)
        if n_images == 0 or n_captions == 0 or n_captions % n_images:
            raise UWMLError(
                f"{captions_path}: found {n_captions} captions for the {n_images} images of {path.name}, "
                "expected the same number of captions for every image"
            )
        empty = next((number for number, caption in enumerate(self.captions) if not caption.strip()), None)
        if empty is not None:
            raise UWMLError(f"{captions_path}: line {empty + 1} is empty, expected a caption")
        null = next((number for number, caption in enumerate(self.captions) if "\0" in caption), None)
        if null is not None:
            raise UWMLError(f"{captions_path}: line {null + 1} holds a NUL character, expected text")
        long = next((number for number, caption in enumerate(self.captions) if len(caption) > LONGEST_CAPTION), None)
        if long is not None:
            raise UWMLError(
                f"{captions_path}: line {long + 1} has {len(self.captions[long]):,} characters, "
                f"expected a caption of at most {LONGEST_CAPTION:,}"
            )
        self.captions_per_image = n_captions // n_images
        self.ids = self._read_ids(n_images)
        self._first, self._regions = 0, regions
        self._encoded: EncodedCaptions | None = None
        if max_images:
            self.keep(0, max_images)
        if regions > self.features.shape[1] and not self.varying:
            raise UWMLError(f"regions: found {regions}, expected at most the {self.features.shape[1]} of {path}")
        self.features = self._with_first_regions(self.features)

    def _read_captions(self, path: Path) -> list[str]:
        if self.vectors is None:
            return read_lines(path)
        captions = read_lines(path) if path.exists() else [f"caption {number}" for number in range(len(self.vectors))]
        if len(captions) != len(self.vectors):
            raise UWMLError(
                f"{path.with_suffix('.npy')}: found {len(self.vectors)} vectors, expected one for each of the "
                f"{len(captions)} captions of {path.name}"
            )
        return captions

    def _with_first_regions(self, features: np.ndarray | Sequences) -> np.ndarray | Sequences:
        if not self._regions:
            return features
        return features.first(self._regions) if isinstance(features, Sequences) else features[:, : self._regions]

    def keep(self, start: int, stop: int) -> None:
        """Keep the images start to stop - 1 and their captions alone."""
        self.features, self.ids = self.features[start:stop], self.ids[start:stop]
        captions = slice(start * self.captions_per_image, stop * self.captions_per_image)
        self.captions = self.captions[captions]
        self.vectors = None if self.vectors is None else self.vectors[captions]
        self._first, self._encoded = self._first + start, None

    def _rows_per_image(self) -> int:
        """Say how often each image is stored: once, or once for each caption where its id stands there as often."""
        path = self.folder / f"{self.split}_ids.txt"
        if len(self.features) != len(self.captions) or isinstance(self.features, Sequences):
            return 1
        if not path.exists():
            if len(self.features) > 1 and self.features[0].tobytes() == self.features[1].tobytes():
                raise UWMLError(
                    f"{path}: no such file, though rows 0 and 1 of {self.split}_ims.npy are one image; "
                    "expected a line for each row, the same for the rows of one image"
                )
            return 1
        ids = read_lines(path)
        copies = next((row for row, name in enumerate(ids) if name != ids[0]), len(ids))
        repeats = copies > 1 and ids == [name for name in ids[::copies] for _ in range(copies)]
        if not repeats or len(ids) != len(self.features):
            return 1
        for row in (0, len(ids) - copies):
            if self.features[row].tobytes() != self.features[row + copies - 1].tobytes():
                raise UWMLError(
                    f"{self.folder / f'{self.split}_ims.npy'}: rows {row} and {row + copies - 1} differ, expected one "
                    f"image, for {path.name} says {ids[row]!r} for both"
                )
        return copies

    def _read_ids(self, n_images: int) -> list[str]:
        path = self.folder / f"{self.split}_ids.txt"
        if not path.exists():
            return [str(number) for number in range(n_images)]
        ids = read_lines(path)
        if len(ids) == n_images * self.captions_per_image:  # one line for every caption
            ids = ids[:: self.captions_per_image]
        if len(ids) != n_images:
            raise UWMLError(f"{path}: found {len(ids)} ids, expected {n_images}, one for each image")
        if len(set(ids)) < n_images:
            twice = next(name for name, count in Counter(ids).items() if count > 1)
            raise UWMLError(f"{path}: found {twice!r} more than once, expected one row of features for each image")
        return ids

    def __getstate__(self) -> dict[str, Any]:
        """Leave the features out: a worker process opens the file itself instead of receiving a copy."""
        return {**self.__dict__, "features": len(self.features)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        features = load_features(self.folder, self.split)[:: self._copies]
        self.features = self._with_first_regions(features[self._first : self._first + state["features"]])

    @property
    def feature_dim(self) -> int:
        """Numbers per region."""
        return self.features.shape[2]

    @property
    def varying(self) -> bool:
        """Whether images have unequal numbers of regions."""
        return isinstance(self.features, Sequences)

    @property
    def caption_size(self) -> int:
        """What a caption encoder is made for: words of the vocabulary, or numbers per caption that is a vector."""
        return len(self.vocabulary or ()) if self.vectors is None else self.vectors.shape[1]

    @property
    def caption_lengths(self) -> np.ndarray:
        """Words of every caption, with `<start>` and `<end>`, (n_captions,) int64; 1 where captions are vectors."""
        return self.encoded.lengths if self.vectors is None else np.ones(len(self), np.int64)

    @property
    def encoded(self) -> EncodedCaptions:
        """Every caption as numbers, with `<start>` and `<end>`."""
        if self._encoded is None:
            if self.vocabulary is None:
                raise UWMLError(f"{self.folder}: captions can be encoded only with a vocabulary")
            encode = partial(self.vocabulary.encode, style=self.caption_style)
            self._encoded = EncodedCaptions(map(encode, self.captions))
        return self._encoded

    def optional_array(self, name: str, dimensions: int) -> np.ndarray | None:
        """Memory-map `{split}_{name}.npy`, such as pictures or boxes, which few data sets have; None without it."""
        path = self.folder / f"{self.split}_{name}.npy"
        return load_array(path, dimensions) if path.exists() else None

    def images(self, start: int, stop: int) -> Tensor:
        """Features of the images start to stop - 1, float32; raises UWMLError naming an image that is not finite."""
        return self._gather(range(*slice(start, stop).indices(len(self.features))))

    def counts(self, numbers: Sequence[int]) -> Tensor:
        """Regions of some images, (n,) int64."""
        if isinstance(self.features, Sequences):
            return torch.from_numpy(self.features.counts[list(numbers)])
        return torch.full((len(numbers),), self.features.shape[1])

    def _gather(self, numbers: Sequence[int]) -> Tensor:
        with np.errstate(over="ignore"):
            if isinstance(self.features, Sequences):
                images = torch.from_numpy(self.features.padded(numbers))
            else:
                images = torch.from_numpy(self.features[np.array(numbers, int)].astype(np.float32, copy=False))
        if (bad := first_not_finite(images)) is not None:
            raise UWMLError(
                f"{self.folder / f'{self.split}_ims.npy'}: image {self._first + numbers[bad]} (counted from 0) holds "
                "NaN, infinity or what is too large for float32, expected finite numbers"
            )
        return images

    def read_captions(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What a caption encoder reads of some captions, see `Batch`: tokens, padded with `<pad>`, and lengths."""
        if self.vectors is None:
            return pad_captions([self.encoded[number] for number in numbers])
        with np.errstate(over="ignore"):
            vectors = torch.from_numpy(self.vectors[np.array(numbers, int)].astype(np.float32, copy=False))
        if (bad := first_not_finite(vectors)) is not None:
            raise UWMLError(
                f"{self.folder / f'{self.split}_caps.npy'}: row {self._first * self.captions_per_image + numbers[bad]} "
                "(counted from 0) holds NaN, infinity or what is too large for float32, expected finite numbers"
            )
        return vectors, torch.ones(len(vectors), dtype=torch.int64)

    def scan(self, block: int = 1024) -> None:
        """Look at every feature; raises UWMLError, naming the image or the caption, if one is not finite."""
        for start in progress(range(0, len(self.features), block), f"{self.split}: looking at every feature"):
            stop = min(start + block, len(self.features))
            self.images(start, stop)
            if self.vectors is not None:
                self.read_captions(range(start * self.captions_per_image, stop * self.captions_per_image))

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        batch = self.batch([index])
        return batch.features[0], batch.tokens[0], int(batch.image_ids[0])

    def batch(self, indices: Sequence[int]) -> Batch:
        """Items by their numbers, their features gathered at once and their captions padded with `<pad>`.

        A loader that shuffles: `DataLoader(range(len(dataset)), 128, shuffle=True, collate_fn=dataset.batch)`.
        """
        images = [index // self.captions_per_image for index in indices]
        return Batch(self._gather(images), *self.read_captions(indices), torch.tensor(images), self.counts(images))


def check_same_shape(*splits: PrecomputedDataset) -> None:
    """Raise UWMLError if splits of one data set differ in what a model is made for: numbers per region, or vector."""
    first, *others = splits
    for other in others:
        if other.feature_dim != first.feature_dim:
            raise UWMLError(
                f"{other.folder / f'{other.split}_ims.npy'}: found {other.feature_dim} numbers a region, expected "
                f"{first.feature_dim} as in {first.split}_ims.npy"
            )
        if first.vectors is not None and other.caption_size != first.caption_size:
            raise UWMLError(
                f"{other.folder / f'{other.split}_caps.npy'}: found {other.caption_size} numbers a caption, expected "
                f"{first.caption_size} as in {first.split}_caps.npy"
            )


def load_features(folder: Path, split: str) -> np.ndarray | Sequences:
    """Memory-map the features of a split, (n, regions, dim); (n, dim) is taken for one region an image."""
    path, offsets = (folder / f"{split}_{name}.npy" for name in ("ims", "offsets"))
    if offsets.exists():
        return Sequences.load(path, offsets)
    array = load_array(path, (2, 3))
    return array if array.ndim == 3 else array[:, None]


def first_not_finite(x: Tensor) -> int | None:
    """Number of the first row with NaN or infinity; None if there is none."""
    # The sum tells nearly as well, in a twentieth of the time; it alone may overflow.
    if x.sum().isfinite() or (finite := x.isfinite().flatten(1).all(dim=1)).all():
        return None
    return int((~finite).nonzero()[0])
