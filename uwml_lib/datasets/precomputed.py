"""Any folder in the SCAN layout: `{split}_ims.npy`, `{split}_caps.txt`, `{split}_ids.txt`.

Two files more are this kit's: `{split}_offsets.npy`, where images have unequal numbers of regions, as videos of frames,
and `{split}_caps.npy`, captions as vectors.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from uwml_lib.config import Captions
from uwml_lib.datasets.batches import Batch, EncodedCaptions, Sequences, finite_float32, pad_captions, sentence
from uwml_lib.datasets.vocabulary import Vocabulary, available_tokenizer
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import load_array, read_bytes, read_lines, sha256_of
from uwml_lib.support.progress import progress

SPLIT_FILES = ("ims.npy", "caps.txt", "caps.npy", "offsets.npy")
LONGEST_CAPTION = 5000
"""Characters; a longer line is no caption, and padding a batch to its length would fill the memory."""
READ_WHOLE = 200 * 10**6
"""Bytes; of larger files the fingerprint takes samples."""
CAPTION_NUMBER = re.compile(r"#\d+$")
"""What follows the image's name where every caption has an id, as in Flickr8k."""


class PrecomputedDataset(Dataset):
    """Precomputed region features and captions of one split; item k is caption k with its image.

    features: (n_images, regions, dim), memory-mapped, float or integer, or `Sequences` where regions differ in number.
    captions: image-major, so caption `captions_per_image * i + k` describes image i. ids: one per image; in a file of
    one per caption, those of an image must be the same, but for an ending such as `#0`.
    vectors: (n_captions, dim), captions as vectors, or None.

    max_images, regions: take only the first images, and the first regions of each; 0 means all.
    caption_style: how captions are read, see `Vocabulary.encode`; "vectors" takes `{split}_caps.npy`, and the text may
    be missing. Rows that the ids show to be one image, stored once for each of its captions as in SCAN's dev and test
    files, are taken once. Raises UWMLError, naming the file, where something is missing or does not fit.
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
        self._regions = regions or None
        self.features, self.captions, self.vectors = self._load_features(), *self._load_captions()
        ids = read_lines(self._file("ids.txt")) if self._file("ids.txt").exists() else None
        self._copies = self._rows_per_image(ids)
        self.features = self.features[:: self._copies]
        n_images, n_captions = len(self.features), len(self.captions)
        path = self._file("caps.txt" if self.vectors is None else "caps.npy")
        found = f"{n_captions} captions for the {n_images} images of {split}_ims.npy"
        expect(n_captions % n_images == 0, path, found, "the same number of captions for every image")
        for line, caption in enumerate(self.captions, 1):
            if wrong := _fault_of(caption):
                raise UWMLError(f"{self._file('caps.txt')}: line {line} {wrong}")
        self.captions_per_image = n_captions // n_images
        self.ids = self._one_id_an_image(ids)
        if regions > (most := self.features.shape[1]) and not self.varying:
            raise UWMLError(f"regions: found {regions}, expected at most the {most} of {self._file('ims.npy')}")
        self._first = 0
        self.features = self.features[:, : self._regions]
        self.keep(0, max_images or n_images)

    def _file(self, name: str) -> Path:
        return self.folder / f"{self.split}_{name}"

    def _load_features(self) -> np.ndarray | Sequences:
        """Memory-map every row, (n, regions, dim); (n, dim) is taken for one region an image."""
        path, offsets = self._file("ims.npy"), self._file("offsets.npy")
        if offsets.exists():
            return Sequences.load(path, offsets)
        array = load_array(path, 2, 3)
        return array if array.ndim == 3 else array[:, None]

    def _load_captions(self) -> tuple[list[str], np.ndarray | None]:
        """Read the texts and, where the style says so, the vectors."""
        path = self._file("caps.txt")
        if self.caption_style != "vectors":
            return read_lines(path), None
        vectors = load_array(self._file("caps.npy"), 2)
        captions = read_lines(path) if path.exists() else [f"caption {number}" for number in range(len(vectors))]
        expected = f"one for each of the {len(captions)} captions of {path.name}"
        expect(len(captions) == len(vectors), self._file("caps.npy"), f"{len(vectors)} vectors", expected)
        return captions, vectors

    def _rows_per_image(self, ids: list[str] | None) -> int:
        """Say how often each image is stored: once, or once for each caption where its id stands there as often."""
        features = self.features
        if len(features) != len(self.captions) or isinstance(features, Sequences):
            return 1
        if ids is None:
            if len(features) > 1 and features[0].tobytes() == features[1].tobytes():
                missing = f"no such file, though rows 0 and 1 of {self.split}_ims.npy are one image"
                expected = "a line for each row, the same for the rows of one image"
                raise UWMLError(f"{self._file('ids.txt')}: {missing}; expected {expected}")
            return 1
        runs = {len(list(run)) for _, run in groupby(ids)}
        if len(runs) > 1 or len(ids) != len(features):
            return 1
        copies = runs.pop()
        for row in (0, len(ids) - copies):
            last = row + copies - 1
            if features[row].tobytes() != features[last].tobytes():
                expected = f"one image, for {self.split}_ids.txt says {ids[row]!r} for both"
                raise UWMLError(f"{self._file('ims.npy')}: rows {row} and {last} differ, expected {expected}")
        return copies

    def _one_id_an_image(self, ids: list[str] | None) -> list[str]:
        path, n_images = self._file("ids.txt"), len(self.features)
        if ids is None:
            return [str(number) for number in range(n_images)]
        if len(ids) == len(self.captions) > n_images:  # one line for every caption
            ids = self._ids_of_captions(path, ids)
        expect(len(ids) == n_images, path, f"{len(ids)} ids", f"{n_images}, one for each image")
        name, times = Counter(ids).most_common(1)[0]
        if times > 1:
            rows = " and ".join(str(row) for row, other in enumerate(ids) if other == name)
            found = f"{name!r} more than once, for images {rows} (counted from 0)"
            raise UWMLError(f"{path}: found {found}, expected one row of features for each image")
        return ids

    def _ids_of_captions(self, path: Path, ids: list[str]) -> list[str]:
        """Return an id an image from one for every caption; raises UWMLError naming the first line out of place."""
        names, K = [CAPTION_NUMBER.sub("", name) for name in ids], self.captions_per_image
        if len({*names}) == len(names):  # of the captions, not of the images: nothing can be told from them
            return names[::K]
        for row, name in enumerate(names):
            if name != (wanted := names[row - row % K]):
                expected = f"{wanted!r} as in line {row - row % K + 1}"
                order = f"the {K} captions of an image stand together, here and in {self.split}_caps.txt"
                raise UWMLError(f"{path}: line {row + 1}: found {name!r}, expected {expected}; {order}")
        return names[::K]

    def keep(self, start: int, stop: int) -> None:
        """Keep the images start to stop - 1 and their captions alone."""
        self.features, self.ids = self.features[start:stop], self.ids[start:stop]
        captions = slice(start * self.captions_per_image, stop * self.captions_per_image)
        self.captions = self.captions[captions]
        self.vectors = None if self.vectors is None else self.vectors[captions]
        self._first += start
        for name in ("encoded", "sentences"):
            self.__dict__.pop(name, None)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the features out: a worker process opens the file itself instead of receiving a copy."""
        return {**self.__dict__, "features": len(self.features)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        features = self._load_features()[:: self._copies]
        self.features = features[self._first : self._first + state["features"], : self._regions]

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

    @cached_property
    def encoded(self) -> EncodedCaptions:
        """Every caption as numbers, with `<start>` and `<end>`."""
        if self.vocabulary is None:
            raise UWMLError(f"{self.folder}: captions can be encoded only with a vocabulary")
        return EncodedCaptions(self.vocabulary.encode(caption, self.caption_style) for caption in self.captions)

    @cached_property
    def sentences(self) -> np.ndarray:
        """A number for every caption, (n_captions,) int64; captions of the same sentence have the same."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(sentence(caption), len(numbers)) for caption in self.captions])

    def optional_array(self, name: str, *dimensions: int) -> np.ndarray | None:
        """Memory-map `{split}_{name}.npy`, such as pictures or boxes, which few data sets have; None without it.

        A row an image, or where images have unequal numbers of regions a row a region, of all images of the split.
        Raises UWMLError if there are more or fewer.
        """
        path, features = self._file(f"{name}.npy"), self._load_features()
        if not path.exists():
            return None
        array, varying = load_array(path, *dimensions), isinstance(features, Sequences)
        rows = len(features.rows if isinstance(features, Sequences) else features)
        expect(len(array) == rows, path, f"{len(array)} rows", f"the {rows} of {self.split}_ims.npy")
        return array if varying else array[:: self._copies][self._first :][: len(self.features)]

    def images(self, start: int, stop: int) -> Tensor:
        """Features of the images start to stop - 1, float32; raises UWMLError naming an image that is not finite."""
        return self._gather(range(*slice(start, stop).indices(len(self.features))))

    def counts(self, numbers: Sequence[int]) -> Tensor:
        """Regions of some images, (n,) int64."""
        if isinstance(self.features, Sequences):
            return torch.from_numpy(self.features.counts[list(numbers)])
        return torch.full((len(numbers),), self.features.shape[1])

    def _gather(self, numbers: Sequence[int]) -> Tensor:
        features = self.features
        rows = features.padded(numbers) if isinstance(features, Sequences) else features[np.array(numbers, int)]
        return finite_float32(rows, f"{self._file('ims.npy')}: image", numbers, self._first)

    def read_captions(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What a caption encoder reads of some captions, see `Batch`: tokens, padded with `<pad>`, and lengths."""
        if self.vectors is None:
            return pad_captions([self.encoded[number] for number in numbers])
        where, first = f"{self._file('caps.npy')}: row", self._first * self.captions_per_image
        vectors = finite_float32(self.vectors[np.array(numbers, int)], where, numbers, first)
        return vectors, torch.ones(len(vectors), dtype=torch.int64)

    def scan(self, block: int = 1024) -> None:
        """Look at all there is; raises UWMLError, naming the file, for what does not fit or is not finite."""
        for _ in self.blocks(block):
            pass

    def blocks(self, block: int = 1024) -> Iterator[tuple[range, Tensor]]:
        """Yield the numbers of some images and their features, float32, one block after the other; see `scan`."""
        self.optional_array("boxes", 2, 3)
        self.optional_array("pictures", 4)
        for start in progress(range(0, len(self.features), block), f"{self.split}: looking at every feature"):
            numbers = range(start, min(start + block, len(self.features)))
            yield numbers, self.images(numbers.start, numbers.stop)
            self._check_copies(numbers)
            if self.vectors is not None:
                self.read_captions(range(start * self.captions_per_image, numbers.stop * self.captions_per_image))

    def _check_copies(self, numbers: range) -> None:
        """Raise UWMLError if an image that is stored for each of its captions is not the same in all these rows."""
        if (copies := self._copies) == 1:
            return
        stored = load_array(self._file("ims.npy"), 2, 3)
        for row in range((self._first + numbers.start) * copies, (self._first + numbers.stop) * copies):
            if row % copies and stored[row].tobytes() != stored[first := row - row % copies].tobytes():
                expected = f"one image, for {self.split}_ids.txt has one id for both"
                raise UWMLError(f"{self._file('ims.npy')}: rows {first} and {row} differ, expected {expected}")

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        batch = self.batch([index])
        return batch.features[0], batch.tokens[0], int(batch.image_ids[0])

    def batch(self, indices: Sequence[int]) -> Batch:
        """Items by their numbers, their features gathered at once and their captions padded with `<pad>`.

        A loader that shuffles: `DataLoader(range(len(dataset)), 128, shuffle=True, collate_fn=dataset.batch)`.
        """
        images, (tokens, lengths) = [index // self.captions_per_image for index in indices], self.read_captions(indices)
        of_image = self.sentences.reshape(-1, self.captions_per_image)[images]
        sentences = torch.from_numpy(np.column_stack([self.sentences[list(indices)], of_image]))
        return Batch(self._gather(images), tokens, lengths, torch.tensor(images), self.counts(images), sentences)


def check_same_shape(*splits: PrecomputedDataset) -> None:
    """Raise UWMLError if splits of one data set differ in what a model is made for: numbers per region, or vector."""
    first, *others = splits
    for other in others:
        for name, unit, size in (("ims.npy", "region", "feature_dim"), ("caps.npy", "caption", "caption_size")):
            if (found := getattr(other, size)) != (expected := getattr(first, size)):
                path, wanted = other._file(name), first._file(name).name
                raise UWMLError(f"{path}: found {found} numbers a {unit}, expected {expected} as in {wanted}")


def _fault_of(caption: str) -> str:
    if not caption.strip():
        return "is empty, expected a caption"
    if "\0" in caption:
        return "holds a NUL character, expected text"
    too_long = len(caption) > LONGEST_CAPTION
    return f"has {len(caption):,} characters, expected at most {LONGEST_CAPTION:,}" if too_long else ""


def evaluation_split(folder: Path | str) -> str:
    """Return "test", or "dev" where there is no test split; whoever reports numbers must say which.

    Raises UWMLError for a test split without features, which would be passed over in silence.
    """
    features, *others = (Path(folder) / f"test_{name}" for name in SPLIT_FILES)
    if features.exists():
        return "test"
    if there := [path.name for path in others if path.exists()]:
        raise UWMLError(f"{features}: no such file, though there is {there[0]}; remove that to report dev")
    if features.is_symlink():
        raise UWMLError(f"{features}: leads nowhere; remove it to report dev")
    return "dev"


def captions_there(folder: Path | str) -> Captions:
    """Return "vectors" for a folder with vectors of its captions and no text of them, and "text" for any other."""
    text, vectors = (Path(folder) / f"train_caps.{ending}" for ending in ("txt", "npy"))
    return "vectors" if vectors.exists() and not text.exists() else "text"


def fingerprint(folder: Path | str, captions: Captions = "text") -> str:
    """Digest of a folder's captions, features and tokenizer; of files above 200 MB, of 64 images (COCO is 36 GB).

    captions: "vectors" takes these in, too.
    """
    folder, digest = Path(folder), hashlib.sha256(available_tokenizer().encode())
    for split in ("train", "dev", "test"):
        path, text, vectors, offsets = (folder / f"{split}_{name}" for name in SPLIT_FILES)
        if not path.exists():
            continue
        features = load_array(path, 2, 3)
        digest.update(f"{split} {features.shape} {features.dtype}".encode())
        if captions != "vectors" or text.exists():
            digest.update(read_bytes(text))
        if captions == "vectors":
            digest.update(sha256_of(vectors).encode())
        if offsets.exists():
            digest.update(sha256_of(offsets).encode())
        if path.stat().st_size <= READ_WHOLE:
            digest.update(sha256_of(path).encode())
        else:
            for row in np.linspace(0, len(features) - 1, 64, dtype=int):
                digest.update(features[row].tobytes())
    return digest.hexdigest()[:16]
