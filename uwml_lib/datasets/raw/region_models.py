"""What turns pictures into regions, each a vector and a box, and what every such model needs: libraries and weights."""

import contextlib
import hashlib
import importlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from uwml_lib.support.errors import UWMLError, first_words
from uwml_lib.support.files import check_is_file
from uwml_lib.support.numerics import for_now

if TYPE_CHECKING:
    from PIL.Image import Image


class RegionModel(NamedTuple):
    """A model that makes regions of pictures; `transform` makes its input (3, height, width) of a whole picture.

    describe: inputs (n, 3, height, width), on the device of `module` -> features (n, regions, dim) and boxes
    (n, regions, 4), x1, y1, x2, y2 in fractions of the picture, both float32 on the CPU. shape: regions and dim.
    amount: the rows of the grid, or the boxes. settings: what builds it again, for pictures.json. digest: of its name,
    weights and input.
    """

    name: str
    module: nn.Module
    transform: Callable[["Image"], Tensor]
    describe: Callable[[Tensor], tuple[Tensor, Tensor]]
    shape: tuple[int, int]
    amount: int
    settings: dict[str, Any]
    digest: str


def digest_of(name_and_input: str, module: nn.Module) -> str:
    """Return a digest of a model's name, input and weights."""
    digest = hashlib.sha256(name_and_input.encode())
    for key, value in module.state_dict().items():
        digest.update(key.encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def import_vision(name: str) -> ModuleType:
    """Import a module of timm or transformers, with torchvision before it; raises UWMLError where that cannot be."""
    package = name.partition(".")[0]
    try:
        _import_torchvision()
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        install = "`make setup`, or pip install '/path/to/the/kit[vision]'"
        raise UWMLError(f"features of pictures need {package}: {install}") from error
    except (ImportError, RuntimeError) as error:
        mended = f"install the torchvision that belongs to torch {torch.__version__}"
        raise UWMLError(f"{package} or torchvision cannot be imported ({first_words(error)}); {mended}") from error


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


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read safetensors, or a state dict of torch, from which no code is run; raises UWMLError if it is neither."""
    timm = import_vision("timm")
    check_is_file(path)
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)
        if not state or not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("found no weights, expected tensors by their names")
    except Exception as error:  # a damaged or hostile file raises nearly anything
        raise UWMLError(f"{path}: not readable as weights, from which no code is run ({first_words(error)})") from error
    return state


@contextlib.contextmanager
def from_the_hub(name: str, source: str) -> Iterator[None]:
    """Turn what goes wrong while weights are downloaded into a sentence that says which file to fetch, and what to do
    with it; huggingface_hub would log each of its attempts. source: the file and where it is.
    """
    logger = logging.getLogger("huggingface_hub")
    try:
        with for_now(lambda: logger.level, logger.setLevel, logging.ERROR):
            yield
    except Exception as error:  # the hub's, the network's, the operating system's
        way = f"fetch {source} and name the file by `--weights` of `uwml pictures` (or `uwml data`, for a grid)"
        raise UWMLError(f"{name}: its weights could not be downloaded ({first_words(error)}); {way}") from error
