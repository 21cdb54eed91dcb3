"""Features of the cells of a grid over a whole picture, from any image model of `timm`."""

import math
from collections.abc import Callable
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uwml_lib.config import BACKBONE, RESOLUTION
from uwml_lib.datasets.raw.region_models import RegionModel, digest_of, from_the_hub, import_vision, read_weights
from uwml_lib.support.errors import UWMLError, expect, first_words
from uwml_lib.support.files import check_is_file

if TYPE_CHECKING:
    from PIL.Image import Image


FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM")
"""What pictures are read from: of all that Pillow knows, some start other programs."""


LARGEST_INPUT = 2048
"""Rows of pixels; a larger input is a slip, which would fill the memory."""


class Backbone(NamedTuple):
    """An image model: `transform` makes its input (3, *input_size) of a picture, the whole of which is kept.

    Its last feature map is (dim, *map_size); digest: of its name, weights and input.
    """

    name: str
    model: nn.Module
    transform: Callable[["Image"], Tensor]
    dim: int
    input_size: tuple[int, int]
    map_size: tuple[int, int]
    digest: str


def grid_model(
    weights: Path | None = None, backbone: str | None = None, resolution: int | None = None, grid: int = 6
) -> RegionModel:
    """Build a model whose regions are the cells of a grid: means of a backbone's last feature map.

    weights: a file instead of a download. backbone: None stands for BACKBONE at RESOLUTION. resolution: rows and
    columns of the input; None is the backbone's own. grid: rows and columns of regions. Raises UWMLError.
    """
    expect(grid > 0, "grid", grid, "at least 1")
    if backbone is None:
        backbone, resolution = BACKBONE, RESOLUTION if resolution is None else resolution
    built = build_backbone(backbone, weights, resolution=resolution)
    most = " x ".join(map(str, built.map_size))
    expect(grid <= min(built.map_size), "grid", grid, f"no more than the {most} of the feature map of {backbone}")
    cells = torch.from_numpy(grid_boxes(built.map_size, grid))

    def describe(pixels: Tensor) -> tuple[Tensor, Tensor]:
        return grid_features(built, pixels, grid), cells.expand(len(pixels), -1, -1)

    height, width = built.input_size
    settings = {"backbone": backbone, "resolution": height if height == width else None, "grid": grid}
    settings |= {"timm": version("timm")}
    return RegionModel(
        backbone, built.model, built.transform, describe, (grid**2, built.dim), grid, settings, built.digest
    )


def build_backbone(
    name: str = BACKBONE, weights: Path | None = None, pretrained: bool = True, resolution: int | None = None
) -> Backbone:
    """Build a model of `timm` on the CPU, with the weights of a file, or else those that timm downloads and keeps.

    weights: safetensors, or a state dict of torch, from which no code is run. pretrained: False leaves them random.
    resolution: rows and columns of the input, instead of the model's own.
    Raises UWMLError for a name, a file or a resolution that will not do, and where nothing can be downloaded.
    """
    timm = import_vision("timm")
    try:
        known = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # weights that the model does not have
        known = None
    if known is None:
        near = get_close_matches(name, [*timm.list_models(), *timm.list_models(pretrained=True)], n=1)
        hint = f"; did you mean {near[0]}?" if near else f" such as {BACKBONE}"
        raise UWMLError(f"backbone: found {name!r}, expected a model of timm{hint}")
    model = (_with_weights(timm, name, known, weights) if pretrained or weights else timm.create_model(name)).eval()
    # The model's own size, colours and interpolation; but a cut from the middle loses what captions speak of.
    config = {**timm.data.resolve_model_data_config(model), "crop_mode": "squash", "crop_pct": 1.0}
    dim, rows, columns = _map_shape(name, model, config["input_size"])
    if resolution is not None and (3, resolution, resolution) != config["input_size"]:
        dim, rows, columns = _resized(name, model, config["input_size"][1], resolution)
        config["input_size"] = (3, resolution, resolution)
    digest = digest_of(f"{name} {config}", model)
    transform = timm.data.create_transform(**config, is_training=False)
    return Backbone(name, model, transform, dim, config["input_size"][1:], (rows, columns), digest)


def _map_shape(name: str, model: nn.Module, input_size: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the shape of the last feature map, (dim, rows, columns), for inputs of a size."""
    with torch.inference_mode():
        _, dim, rows, columns = feature_map(name, model, torch.zeros(1, *input_size)).shape
    return dim, rows, columns


def _resized(name: str, model: Any, own: int, resolution: int) -> tuple[int, int, int]:
    """Make a model take another input than its own, and return the shape of its map then.

    It must be a multiple of the rows that a row of the map stands for: convolutions would take any input, but fill it
    up at the edge, and the cells would not lie where they say. Raises UWMLError.
    """
    stride = model.feature_info[-1]["reduction"]
    fits = 0 < resolution <= LARGEST_INPUT and resolution % stride == 0
    expect(fits, "resolution", resolution, f"a multiple of {stride} up to {LARGEST_INPUT:,}, for {name}")
    try:
        if hasattr(model, "set_input_size"):  # transformers, whose places are learned or whose windows must fit
            model.set_input_size((resolution, resolution))
        return _map_shape(name, model, (3, resolution, resolution))
    except Exception as error:  # of a size that a model does not take, each raises its own
        why = f"found {resolution}, expected {own}, for {name} takes no other ({first_words(error)})"
        raise UWMLError(f"resolution: {why}") from error


def _with_weights(timm: ModuleType, name: str, known: Any, path: Path | None) -> nn.Module:
    """Build a model with the weights of a file, or else those that timm downloads."""
    if path is None:
        if not known.has_weights:
            raise UWMLError(f"backbone: timm has no weights of {name}; choose another, or name a file by --weights")
        hub = f"{known.hf_hub_filename or 'model.safetensors'} from https://huggingface.co/{known.hf_hub_id}"
        with from_the_hub(name, hub if known.hf_hub_id else known.url):
            return timm.create_model(name, pretrained=True)
    state = read_weights(path)
    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": state})
    except Exception as error:  # of names and shapes that are not this model's, timm's own conversions raise anything
        raise UWMLError(f"{path}: does not fit {name} ({' '.join(str(error).split())[:200]})") from error


def feature_map(name: str, model: nn.Module, pixels: Tensor) -> Tensor:
    """Return the last feature map (n, dim, rows, columns) for inputs (n, 3, height, width).

    Maps may have their channels last, and tokens are laid out in a square. Raises UWMLError for other outputs.
    """
    found, dim = model.forward_features(pixels), model.num_features  # type: ignore[operator]  # as every model of timm
    dimensions = found.ndim if isinstance(found, Tensor) else 0
    if dimensions == 3:
        patches = found[:, getattr(model, "num_prefix_tokens", 0) :]
        side = math.isqrt(patches.shape[1])
        if side and side**2 == patches.shape[1]:
            return patches.transpose(1, 2).unflatten(2, (side, side))
    if dimensions == 4 and dim in (found.shape[1], found.shape[3]):
        return found if found.shape[1] == dim else found.permute(0, 3, 1, 2)
    shape = tuple(found.shape) if dimensions else type(found).__name__
    raise UWMLError(f"backbone: {name} gives {shape}, expected a feature map or a square of tokens; choose another")


def grid_features(backbone: Backbone, pixels: Tensor, grid: int) -> Tensor:
    """Return the features (n, grid * grid, dim), float32 on the CPU, row by row of the grid, each a mean of the map."""
    with torch.inference_mode():
        found = feature_map(backbone.name, backbone.model, pixels).float().cpu()  # not every device pools unevenly
        return F.adaptive_avg_pool2d(found, grid).flatten(2).transpose(1, 2).contiguous()


def grid_boxes(map_size: tuple[int, int], grid: int) -> np.ndarray:
    """Return what of the picture each feature is the mean of: (grid * grid, 4), x1, y1, x2, y2 in fractions, float32.

    Where the map does not divide evenly, neighbours share a row or a column of it.
    """
    y, x = ([(k * size // grid / size, -(-(k + 1) * size // grid) / size) for k in range(grid)] for size in map_size)
    return np.array([(x1, y1, x2, y2) for y1, y2 in y for x1, x2 in x], np.float32)


def load_picture(path: Path) -> "Image":
    """Return a picture as RGB, upright as its EXIF says, on white where it is transparent; raises UWMLError if none."""
    from PIL import Image, ImageOps

    check_is_file(path)
    try:
        with Image.open(path, formats=FORMATS) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I;16"):  # which Pillow would cut off above 255
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            if image.mode in ("I", "F"):
                raise ValueError(f"found 32 bits a pixel, mode {image.mode}, expected 8 or 16")
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert("RGB")
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise UWMLError(f"{path}: not readable as an image ({first_words(error)})") from error
