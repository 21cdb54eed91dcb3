"""Your own pictures to the SCAN layout: a folder of images and a caption file -> splits, captions, regions."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from uwml_lib.datasets.precomputed import PrecomputedDataset
from uwml_lib.datasets.raw import grid_features as grids
from uwml_lib.datasets.raw.caption_files import read_captions
from uwml_lib.datasets.raw.detector import detector_model
from uwml_lib.datasets.raw.growing import JOURNAL, Filled, Growing, refuse_finished
from uwml_lib.datasets.raw.items import first_captions, images_of, listing, write_items
from uwml_lib.datasets.raw.region_models import RegionModel
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import lock, make_folder, read_json, sha256_of, write_json
from uwml_lib.support.numerics import this_device
from uwml_lib.support.progress import Say, counted, progress, say

PICTURES = "pictures.json"
"""Where a data set's folder says of which pictures, and by what, its features were made."""
IMAGES_A_STEP = 256
"""Images between two notes of how far the work is: so many and a batch, at most, are done again after a kill."""
Regions = Literal["grid", "detector"]
Place = tuple[str, int, str]
"""Where an image goes, its split and its row there, and its name."""


class Kind(NamedTuple):
    """A kind of regions: what builds its model, of weights and options; these, and the types that they may have.

    downloaded: what pictures.json says of weights that were not of a file.
    """

    build: Callable[..., RegionModel]
    options: dict[str, tuple[type, ...]]
    downloaded: str


KINDS: dict[Regions, Kind] = {
    "grid": Kind(grids.grid_model, {"backbone": (str,), "resolution": (int, NoneType), "grid": (int,)}, "timm's"),
    "detector": Kind(detector_model, {"boxes": (int,)}, "the hub's"),
}


def write_pictures(
    folder: Path,
    images: Path,
    captions: Path,
    /,
    regions: Regions = "grid",
    backbone: str | None = None,
    resolution: int | None = None,
    grid: int | None = None,
    boxes: int | None = None,
    weights: Path | None = None,
    captions_per_image: int | None = None,
    dev: float = 10.0,
    test: float = 10.0,
    seed: int = 0,
    batch_size: int = 32,
    say: Say = say,
) -> None:
    """Make a data set of your own pictures: captions, splits, and features of regions. Run it again to continue.

    The features, `{split}_ims.npy` (n, regions, dim) float32, are of one of two kinds. A grid: means of a backbone's
    last feature map over the cells of a grid, row by row. Or a detector: the last hidden states of its decoder for
    the boxes with the highest scores, the highest first. `{split}_boxes.npy` (n, regions, 4) float32 has the cells or
    boxes: x1, y1, x2, y2 in pixels of the picture. All pictures are decoded once before anything is written. After a
    kill the same call continues, to the same bytes; another batch size or device changes the last bits.

    Args:
        folder: The new data set's folder, such as data/mine.
        images: The folder of the image files.
        captions: The caption file: lines of an image's name, then a tab, a comma, a vertical bar or a blank, and a
            caption; or JSON, of COCO's or Karpathy's kind too, or JSON Lines. Splits that it gives are kept.
        regions: The cells of a grid, or the boxes of a detector trained on COCO (D-FINE-L).
        backbone: For a grid: the image model, any of timm. The default is CLIP's ResNet-50x4. Weights are downloaded
            once, from the Hugging Face hub, the detector's too.
        resolution: For a grid: rows and columns of the input, into which a picture is squeezed. The default is 384; a
            backbone that you name has its own.
        grid: For a grid: its rows and columns. The default is 6, which makes 36 regions.
        boxes: For a detector: how many boxes an image gets. The default is 36.
        weights: A file of weights instead of the download, .safetensors or a state dict of torch.
        captions_per_image: Captions of every image, the first ones. The default is as many as every image has.
        dev: Percent of the images for choosing the best epoch, at least one image, unless the file gives splits.
        test: Percent of the images for the final scores, at least one image, unless the file gives splits.
        seed: Seed of the order in which images are dealt to the splits.
        batch_size: How many images go through the model at once.

    Raises:
        UWMLError: The argument or file is named, or the images listed.
    """
    for name, value in (("captions_per_image", captions_per_image), ("batch_size", batch_size)):
        expect(value is None or value > 0, name, value, "at least 1")
    kind = _kind(regions, "regions")
    options = _given(regions, backbone=backbone, resolution=resolution, grid=grid, boxes=boxes)
    found, given = _captions_of(images, captions, say)
    splits = given_names(captions, given) if given else split_names(found, dev, test, seed)
    parts = {split: {name: found[name] for name in names} for split, names in splits.items()}
    parts = first_captions(str(captions), parts, captions_per_image, "image", say)
    say(f"weights: {weights or f'{kind.downloaded}, downloaded unless they were before'}")
    model = kind.build(weights, **options)
    places = [(split, row, name) for split, part in parts.items() for row, name in enumerate(part)]
    counts = {split: len(part) for split, part in parts.items()}
    with lock(make_folder(folder), say):
        if not (folder / JOURNAL).exists():
            refuse_finished(folder, counts)
        say(f"1/2 looking at {images_of(counts)}")
        inputs = [model.digest, model.amount, places, _look(images, [name for _, _, name in places])]
        write_items(folder, parts, captions.name)
        arrays = Growing(folder, counts, model.shape, inputs, len(places))
        if arrays.done < len(places):
            source = str(weights.resolve()) if weights else kind.downloaded
            about = {"regions": regions, **model.settings, "weights": source, "digest": model.digest}
            dealt = {"splits": captions.name} if given else {"dev": dev, "test": test, "seed": seed}
            write_json(folder / PICTURES, {**about, **dealt, "images": str(images.resolve())})
        device = this_device()
        count, dim = model.shape
        say(f"2/2 features by {model.name} on {device.type}: {count} regions of {dim:,} numbers{arrays.before}")
        arrays.fill(_features(images, places[arrays.done :], model, device, batch_size), IMAGES_A_STEP, say)
    say(f"now train on it: uwml train --dataset {folder.name} --data-root {folder.parent}")


def _kind(regions: Any, where: str) -> Kind:
    expect(regions in list(KINDS), where, repr(regions), f"one of {', '.join(KINDS)}")
    return KINDS[regions]


def _given(regions: Regions, **options: Any) -> dict[str, Any]:
    """Return the options that were given; raises UWMLError for one of another kind of regions."""
    given = {name: value for name, value in options.items() if value is not None}
    for name, asked in given.items():
        owner = next(owner for owner, its in KINDS.items() if name in its.options)
        expect(owner == regions, name, f"{asked} with --regions {regions}", f"--{name} only with --regions {owner}")
    return given


class Photographs(Sequence[np.ndarray]):
    """Pictures read from their files when they are asked for: (height, width, 3) uint8, of unequal sizes."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return np.asarray(grids.load_picture(self.paths[index]))


def pictures_of(data: PrecomputedDataset) -> Photographs | np.ndarray | None:
    """Return the pictures of a split: `{split}_pictures.npy`, or those that `uwml pictures` was given, or None.

    These are looked for where they were, and in `images` of the data set's folder; None if one of them is missing.
    """
    if (arrays := data.optional_array("pictures", 4)) is not None or not (notes := data.folder / PICTURES).exists():
        return arrays
    for folder in (Path(read_json(notes).get("images", "")), data.folder / "images"):
        paths = [folder / name for name in data.ids]
        if all(map(Path.is_file, paths)):
            return Photographs(paths)
    return None


def picture_features(folder: Path, picture: Path) -> torch.Tensor:
    """Return the features of a picture, (1, regions, dim) float32, as a folder of `write_pictures` has them.

    Raises UWMLError for what is no picture, and where the folder's model is unknown or not to be had.
    """
    notes = folder / PICTURES
    if not notes.exists():
        raise UWMLError(f"{notes}: no such file; features of a picture can be made only as `uwml pictures` made others")
    built = _built_again(notes, read_json(notes))
    return built.describe(built.transform(grids.load_picture(picture))[None])[0]


def _built_again(notes: Path, about: Mapping[str, Any]) -> RegionModel:
    """Build the model that made a folder's features, as pictures.json says; a folder of old says nothing of a kind."""
    kind = _kind(about.get("regions", "grid"), f"{notes}: regions")
    for name, types in {**kind.options, "weights": (str,), "digest": (str,)}.items():
        expect(type(about.get(name)) in types, f"{notes}: {name}", repr(about.get(name)), f"type {types[0].__name__}")
    weights = None if about["weights"] == kind.downloaded else Path(about["weights"])
    try:
        built = kind.build(weights, **{name: about.get(name) for name in kind.options})
    except UWMLError as error:
        raise UWMLError(f"{notes}: {error}") from error
    same = built.digest == about["digest"]
    expect(same, weights or built.name, "other weights, or another input", f"those that made {notes.parent}")
    return built


def _captions_of(images: Path, captions: Path, say: Say) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the captions of every image that has some, and the splits if the file gives them; say what is left out."""
    if not images.is_dir():
        raise UWMLError(f"{images}: no such folder, expected one of images")
    names = {path.relative_to(images).as_posix() for path in images.rglob("*") if path.is_file()}
    form, found, given = read_captions(captions, images, {name for name in names if name.isprintable()})
    count, others = sum(map(len, found.values())), len(names - found.keys())
    said = f"{counted(count, 'caption')} of {counted(len(found), 'image')}"
    say(f"{captions}: {form}; {said}; files without captions: {others:,}")
    if given:
        say("splits: as this file gives them, so --dev, --test and --seed are without effect")
    return found, given


def given_names(captions: Path, given: Mapping[str, str]) -> dict[str, list[str]]:
    """Sort names by the splits that a file gives, in its order; there must be train and dev, test may be missing."""
    splits = {split: [name for name in given if given[name] == split] for split in ("train", "dev", "test")}
    found = {split: len(names) for split, names in splits.items()}
    expect(found["train"] and found["dev"], captions, images_of(found), "at least 1 of train and 1 of dev")
    return {split: names for split, names in splits.items() if names}


def split_names(names: Iterable[str], dev: float, test: float, seed: int) -> dict[str, list[str]]:
    """Shuffle names into train, dev and test; dev, test: percent, at least one name each, train has the rest."""
    order = sorted(names)
    random.Random(seed).shuffle(order)
    shares = f"{dev:g} and {test:g} percent"
    expect(dev > 0 and test > 0 and dev + test < 100, "dev, test", shares, "both above 0, and below 100 together")
    n_dev, n_test = (max(1, round(len(order) * share / 100)) for share in (dev, test))
    n_train = len(order) - n_dev - n_test
    expect(len(order) >= 3, "images with captions", len(order), "at least 3, for one in each of train, dev and test")
    expect(n_train > 0, "dev, test", f"{shares} of {len(order):,} images", "some images left to train with")
    return {"train": order[:n_train], "dev": order[n_train:-n_test], "test": order[-n_test:]}


def _look(images: Path, names: list[str]) -> list[str]:
    """Return a digest of every picture; raises UWMLError listing those that cannot be read."""

    def look(name: str) -> str | UWMLError:
        try:
            grids.load_picture(images / name)
        except UWMLError as error:
            return error
        return sha256_of(images / name)

    found: list[str | UWMLError] = []
    with ThreadPoolExecutor() as pool:  # in steps, for a pool that is interrupted ends what was given to it
        for start in progress(range(0, len(names), IMAGES_A_STEP), "images looked at, in steps"):
            found += pool.map(look, names[start : start + IMAGES_A_STEP])
    if wrong := [str(error).removeprefix(f"{images}/") for error in found if isinstance(error, UWMLError)]:
        said = listing(images, wrong, len(names), "image", "cannot be read")
        raise UWMLError(f"{said}; replace them, or take them out of the caption file")
    return [digest for digest in found if isinstance(digest, str)]


def _features(
    images: Path, places: list[Place], model: RegionModel, device: torch.device, batch_size: int
) -> Iterator[Filled]:
    """Yield what the arrays hold of every image, computed in batches."""
    model.module.to(device)

    def load(place: Place) -> tuple[torch.Tensor, tuple[int, int]]:
        picture = grids.load_picture(images / place[2])
        return model.transform(picture), picture.size

    with ThreadPoolExecutor() as pool:
        for start in progress(range(0, len(places), batch_size), f"batches of {batch_size} images"):
            batch = places[start : start + batch_size]
            pixels, sizes = zip(*pool.map(load, batch), strict=True)
            features, boxes = (found.numpy() for found in model.describe(torch.stack(pixels).to(device)))
            for (split, row, name), numbers, shares, size in zip(batch, features, boxes, sizes, strict=True):
                if not (np.isfinite(numbers).all() and np.isfinite(shares).all()):
                    raise UWMLError(f"{images / name}: {model.name} gives NaN or infinity for this image")
                yield [(split, row)], numbers, shares * (*size, *size)
