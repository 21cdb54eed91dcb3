"""Ask a finished run which images of a split fit a sentence best, and which captions fit an image best."""

import textwrap
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from uwml_lib.datasets import evaluation_split, load_split
from uwml_lib.datasets.precomputed import LONGEST_CAPTION
from uwml_lib.datasets.raw.pictures import picture_features
from uwml_lib.evaluation.scores import products
from uwml_lib.runs.kept import Embeddings, Side, kept_embeddings
from uwml_lib.runs.scoring import device_of, is_run, member_of
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.numerics import threads
from uwml_lib.support.progress import Say, say


class Match(NamedTuple):
    """An image, or a caption, that was found; item, number: its image by its id and by its place in the split, from 0.

    score: of the model, the larger the better. captions: all of the image, or the one that was found.
    """

    score: float
    item: str
    number: int
    captions: str


class Matches(NamedTuple):
    """What was found, the best first; a notebook shows it as a table.

    question: the sentence, or the item, or the file. of: what was found. unknown: words of the sentence that the run's
    vocabulary does not have. number: place in the split of the item that was asked about.
    """

    question: str
    of: Side
    found: list[Match]
    unknown: tuple[str, ...] = ()
    number: int | None = None

    def _repr_html_(self) -> str:
        import pandas as pd  # not needed for training

        table = pd.DataFrame(self.found, index=pd.RangeIndex(1, len(self.found) + 1))
        shown = table.style.format({"score": "{:.4f}", "number": "{}"}, escape="html")
        return shown.set_properties(["item", "captions"], **{"text-align": "left"}).to_html()


class Search:
    """Questions to a finished run about the images and captions of a split.

    Embeddings are computed by the first question and kept in the run's folder, see `kept_embeddings`. Ties are in the
    order of the split.
    """

    def __init__(self, run: Path | str, split: str | None = None, data_root: str = "", say: Say = say) -> None:
        """Load a run of this kit; split: None stands for test, or dev where there is none.

        data_root: where the data set's folder is now, if it was moved. Raises UWMLError if the run is not finished, or
        if it or its data were changed.
        """
        self.folder, self._say = Path(run), say
        expect(is_run(self.folder), run, "a checkpoint of the release", "the folder of a run of this kit")
        member = member_of(self.folder, data_root)
        self.config, self.vocabulary = member.config, member.vocabulary
        self.model = member.model.to(device_of(self.config))
        self.split = split or evaluation_split(self.config.data_folder)
        self.data = load_split(self.config, self.split, self.vocabulary)
        self._kept: dict[Side, Embeddings] = {}

    def images_for(self, sentence: str, top: int = 10) -> Matches:
        """Find the images that fit a sentence best; words that the vocabulary lacks are read as unknown ones.

        Raises UWMLError where the model reads no words, and for a sentence of none but unknown words.
        """
        sentence = " ".join(sentence.split())
        tokens, unknown = self._read(sentence)
        lengths = torch.tensor([len(tokens)])
        with torch.no_grad(), threads(self.config.threads):
            caption = self.model.embed_captions(torch.tensor([tokens], device=self._device), lengths).to(self._dtype)
            scores = self._scores("images", lambda images, _: self.model.scores(images, caption, lengths))
        K, captions, ids = self.data.captions_per_image, self.data.captions, self.data.ids
        found = [
            Match(score, ids[image], image, " / ".join(captions[image * K : (image + 1) * K]))
            for image, score in _best(scores, top)
        ]
        return Matches(sentence, "images", found, unknown)

    def captions_for(self, image: str | int | Path, top: int = 10) -> Matches:
        """Find the captions that fit an image best: an item of the split, by its id or number, or a picture, by a Path.

        A picture needs data of `uwml pictures`, whose backbone is known. An id goes before a number, counted from 0.
        """
        asked = image if isinstance(image, Path) else self._number(str(image))
        with torch.no_grad(), threads(self.config.threads):
            features, counts = self._features(asked)
            embedded = self.model.embed_images(features.to(self._device), counts).to(self._dtype)
            scores = self._scores("captions", lambda captions, lengths: self.model.scores(embedded, captions, lengths))
        K, captions, ids = self.data.captions_per_image, self.data.captions, self.data.ids
        found = [
            Match(score, ids[caption // K], caption // K, captions[caption]) for caption, score in _best(scores, top)
        ]
        question = ids[asked] if isinstance(asked, int) else str(image)
        return Matches(question, "captions", found, number=asked if isinstance(asked, int) else None)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def _dtype(self) -> torch.dtype:
        return torch.float64 if self.config.evaluation_precision == "float64" else torch.float32

    def _read(self, sentence: str) -> tuple[list[int], tuple[str, ...]]:
        """Return a sentence as numbers, and the words of it that are unknown."""
        if self.model.reads == "vectors":
            reads = f"{self.config.model} reads captions as vectors that another model has made of them"
            raise UWMLError(f"{self.folder}: {reads}, so it cannot read a sentence; ask about an image instead")
        try:
            sentence.encode()
        except UnicodeEncodeError as error:
            raise UWMLError(f"question: found {sentence!r}, expected text in UTF-8") from error
        length = len(sentence)
        expect(length <= LONGEST_CAPTION, "question", f"{length:,} characters", f"at most {LONGEST_CAPTION:,}")
        tokens = self.vocabulary.tokens(sentence, self.config.captions)
        words = [token for token in tokens if any(map(str.isalnum, token))]
        if self.config.captions != "text" and words[:1] == ["b"]:  # of b'...', in which the release puts a caption
            del words[0]
        unknown = tuple(dict.fromkeys(word for word in words if word not in self.vocabulary.index))
        if len(unknown) == len(set(words)):
            unread = textwrap.shorten(", ".join(unknown), 200, placeholder=" ...")
            found = f"none but unknown words ({unread})" if unknown else "no word"
            raise UWMLError(f"question: found {found}, expected at least one that {self.folder} knows")
        return self.vocabulary.encode(sentence, self.config.captions), unknown

    def _number(self, item: str) -> int:
        """Return the place of an item in the split, by its id, or else by its number."""
        ids = self.data.ids
        if item in ids:
            return ids.index(item)
        if item.isdecimal() and len(item) < 10 and int(item) < len(ids):
            return int(item)
        near = get_close_matches(item, ids, n=1)
        known = f"an id such as {(near or ids)[0]!r}, or a number from 0 to {len(ids) - 1}"
        raise UWMLError(f"item: found {item[:80]!r}, expected {known}, of the {self.split} split of {self.data.folder}")

    def _features(self, image: int | Path) -> tuple[Tensor, Tensor]:
        """Return features (1, regions, dim) of an item, or of a picture, and the number of regions (1,)."""
        if isinstance(image, int):
            return self.data.images(image, image + 1), self.data.counts([image])
        features = picture_features(self.data.folder, image)[:, : self.config.regions or None]
        found, expected = tuple(features.shape[1:]), self.data.features.shape[1:]
        expect(found == expected, image, f"features {found}", f"{expected}, as of {self.data.folder}")
        return features, torch.tensor([features.shape[1]])

    def _scores(self, side: Side, score: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
        """Score every image or caption of the split, block by block; score: of embeddings and their lengths."""
        if side not in self._kept:
            self._kept[side] = kept_embeddings(self.model, self.data, side, self.folder, self._say)
        kept = self._kept[side]
        scores = np.empty(len(kept.items))
        for items, block, lengths in kept.blocks():
            with products(self.config.evaluation_precision, self._device):
                scores[items] = score(block.to(self._device, self._dtype), lengths).flatten().cpu().double()
        if not np.isfinite(scores).all():
            raise UWMLError(f"{self.folder}: its model gives scores that are not finite, expected cosines")
        return scores


def _best(scores: np.ndarray, top: int) -> list[tuple[int, float]]:
    expect(top >= 1, "top", top, "at least 1")
    return [(int(number), float(scores[number])) for number in (-scores).argsort(kind="stable")[:top]]
