"""Features of the cells of a grid over a whole picture, from any image model of `timm`."""

import hashlib
import math
import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uwml_lib.config import BACKBONE
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import check_is_file

if TYPE_CHECKING:
    from PIL.Image import Image


FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM")
"""What pictures are read from: of all that Pillow knows, some start other programs."""


class Backbone(NamedTuple):
    """An image model: `transform` makes its input (3, height, width) of a picture, the whole of which is kept.

    Its last feature map is (dim, *map_size); digest: of its name, weights and input.
    """

    name: str
    model: nn.Module
    transform: Callable[["Image"], Tensor]
    dim: int
    map_size: tuple[int, int]
    digest: str


def build_backbone(name: str = BACKBONE, weights: Path | None = None, pretrained: bool = True) -> Backbone:
    """Build a model of `timm` on the CPU, with the weights of a file, or else those that timm downloads and keeps.

    weights: safetensors, or a state dict of torch, from which no code is run. pretrained: False leaves them random.
    Raises UWMLError for a name or a file that is no such thing, and where nothing can be downloaded.
    """
    timm = _import_timm()
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
    digest = hashlib.sha256(f"{name} {config}".encode())
    for key, value in model.state_dict().items():
        digest.update(key.encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy())
    with torch.inference_mode():
        _, dim, rows, columns = feature_map(name, model, torch.zeros(1, *config["input_size"])).shape
    transform = timm.data.create_transform(**config, is_training=False)
    return Backbone(name, model, transform, dim, (rows, columns), digest.hexdigest())


def _import_timm() -> ModuleType:
    try:
        _import_torchvision()
        import timm
    except ModuleNotFoundError as error:
        install = "`make setup`, or pip install '/path/to/the/kit[vision]'"
        raise UWMLError(f"features of pictures need timm: {install}") from error
    except (ImportError, RuntimeError) as error:
        mended = f"install the torchvision that belongs to torch {torch.__version__}"
        raise UWMLError(f"timm or torchvision cannot be imported ({_said(error)}); {mended}") from error
    return timm


def _import_torchvision() -> None:
    """Import torchvision, even one that was compiled for another build of torch, such as PyPI's beside torch for CPUs.

    Its transforms, all that is needed, are Python; but its import describes two compiled operators, which then lack.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # operator torchvision::nms does not exist
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401


def _with_weights(timm: ModuleType, name: str, known: Any, path: Path | None) -> nn.Module:
    """Build a model with the weights of a file, or else those that timm downloads."""
    if path is None:
        if not known.has_weights:
            raise UWMLError(f"backbone: timm has no weights of {name}; choose another, or name a file by --weights")
        try:
            return timm.create_model(name, pretrained=True)
        except Exception as error:  # the hub's, the network's, the operating system's
            hub = f"{known.hf_hub_filename or 'model.safetensors'} from https://huggingface.co/{known.hf_hub_id}"
            source = hub if known.hf_hub_id else known.url
            way = f"fetch {source}, put it anywhere on this machine and name it by --weights"
            raise UWMLError(f"{name}: its weights could not be downloaded ({_said(error)}); {way}") from error
    check_is_file(path)
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)
        if not state or not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("found no weights, expected tensors by their names")
    except Exception as error:  # a damaged or hostile file raises nearly anything
        raise UWMLError(f"{path}: not readable as weights, from which no code is run ({_said(error)})") from error
    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": state})
    except Exception as error:  # of names and shapes that are not this model's, timm's own conversions raise anything
        raise UWMLError(f"{path}: does not fit {name} ({' '.join(str(error).split())[:200]})") from error


def _said(error: Exception) -> str:
    """The first sentence of what an error says."""
    return re.split(r"\.?(?:\s*\n|\.\s|$)", str(error).strip())[0] or type(error).__name__


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
        raise UWMLError(f"{path}: not readable as an image ({_said(error)})") from error
