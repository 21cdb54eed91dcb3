"""From a configuration to its data."""

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from uwml_lib.config import PRESETS, ExperimentConfig
from uwml_lib.datasets.digits.clips import CLIPS
from uwml_lib.datasets.digits.embedded import EmbeddedSettings, build_embedded, is_current
from uwml_lib.datasets.digits.scenes import SCENES
from uwml_lib.datasets.download import ARRIVALS, FILES, command_for, download, how_to_get, lacks
from uwml_lib.datasets.hub import ON_THE_HUB, fetch_photographs, lacks_photographs
from uwml_lib.datasets.precomputed import PrecomputedDataset, check_same_shape, evaluation_split
from uwml_lib.datasets.vocabulary import SPECIALS, Vocabulary
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import lock, read_lines
from uwml_lib.support.progress import Say, say

EMBEDDED: dict[str, EmbeddedSettings] = {**SCENES, **CLIPS}
"""Data sets that are built on the spot."""


def prepare_data(
    config: ExperimentConfig,
    say: Say = say,
    fetch: bool = False,
    backbone: str | None = None,
    weights: Path | None = None,
) -> Path:
    """Return the data set's folder, building an embedded data set if need be; raises UWMLError if there is none.

    fetch: also download what can be, which is many gigabytes, and so not for a training to begin by surprise.
    backbone, weights: what makes the features of photographs that are downloaded, as of `write_pictures`.
    """
    name, folder = config.dataset, config.data_folder
    if name in EMBEDDED and not config.data_root:
        if not is_current(folder, EMBEDDED[name]):  # else trainings side by side would wait for each other
            with lock(folder, say):
                build_embedded(folder, EMBEDDED[name], say)
    elif name in FILES and (missing := lacks(folder)):
        if not fetch:
            raise UWMLError(_not_here(folder / missing, how_to_get(name, config.data_root)))
        with lock(folder, say):
            download(name, folder, say)
    elif name in ON_THE_HUB and ((missing := lacks_photographs(folder)) or (fetch and (folder / ARRIVALS).exists())):
        if not fetch:
            raise UWMLError(_not_here(folder / missing, command_for(name, config.data_root, ON_THE_HUB[name].size)))
        with lock(folder, say):
            fetch_photographs(name, folder, backbone, weights, say)
    if not folder.is_dir():
        near = get_close_matches(name, PRESETS, n=1)
        hint = f"; did you mean {near[0]}?" if near and near[0] != name else ""
        files = "{split}_ims.npy and {split}_caps.txt"
        raise UWMLError(f"{folder}: no such folder; expected {name} in the SCAN layout ({files}){hint}")
    return folder


def _not_here(file: Path, command: str) -> str:
    return f"{file}: no such file; {command}, and data/README.md says how by hand"


def check_data(config: ExperimentConfig, scan: bool = True) -> list[PrecomputedDataset]:
    """Return the splits that a training uses; raises UWMLError for what cannot be used.

    scan: also look at every feature, which takes as long as reading them.
    """
    folder = config.data_folder
    splits = [load_split(config, split) for split in dict.fromkeys(("train", "dev", evaluation_split(folder)))]
    check_same_shape(*splits)
    for split in splits if scan else ():
        split.scan()
    return splits


def load_split(config: ExperimentConfig, split: str, vocabulary: Vocabulary | None = None) -> PrecomputedDataset:
    """Load a split as a configuration uses it; raises UWMLError, naming the file, for what cannot be used."""
    dataset = PrecomputedDataset(
        config.data_folder, split, vocabulary, config.max_images, config.regions, config.captions
    )
    if split == "dev" and config.dev_captions:
        n_images, rest = divmod(config.dev_captions, dataset.captions_per_image)
        expected = f"a multiple of the {dataset.captions_per_image} captions an image of {dataset.folder}"
        expect(not rest, "dev_captions", config.dev_captions, expected)
        dataset.keep(0, n_images)
    if split == "train":
        n_images = len(dataset.features) - config.selection_images
        expected = f"fewer than the {len(dataset.features)} training images of {dataset.folder}"
        expect(n_images > 0, "selection_images", config.selection_images, expected)
        dataset.keep(0, n_images)
    return dataset


def load_selection(config: ExperimentConfig, vocabulary: Vocabulary | None = None) -> PrecomputedDataset:
    """Load the images that choose the best epoch: dev, or the last training images where the configuration says so."""
    if not config.selection_images:
        return load_split(config, "dev", vocabulary)
    n_training = len(load_split(config, "train").features)
    dataset = load_split(replace(config, selection_images=0), "train", vocabulary)
    dataset.keep(n_training, len(dataset.features))
    return dataset


def build_vocabulary(folder: Path | str) -> Vocabulary:
    """Build the vocabulary of a folder from its train and dev captions, as the released ones were.

    Raises UWMLError if it has no word.
    """
    files = [Path(folder) / f"{split}_caps.txt" for split in ("train", "dev")]
    vocabulary = Vocabulary.build(caption for file in files for caption in read_lines(file))
    has_words = any(letter.isalnum() for word in vocabulary.words[len(SPECIALS) :] for letter in word)
    where, expected = f"{files[0]} and {files[1].name}", "captions with blanks between words, which recur"
    expect(has_words, where, "no word often enough for a vocabulary", expected)
    return vocabulary


def words_covered(sets: Mapping[str, PrecomputedDataset]) -> dict[str, float]:
    """Return the share of each set's words that its vocabulary has, 0 to 1; nothing where captions are vectors.

    Raises UWMLError, naming the captions, if it has none of them.
    """
    shares = {name: data.encoded.share_known for name, data in sets.items() if data.vectors is None}
    for name, share in shares.items():
        path = sets[name].folder / f"{sets[name].split}_caps.txt"
        expect(share, path, "no word that the vocabulary has", "captions in the words of the training")
    return shares


def coverage_line(shares: Mapping[str, float]) -> str:
    """Say how many of the words the vocabulary has; "" for no shares."""
    said = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
    return f"words that the vocabulary has: {said}" if said else ""
