"""The surest boxes of a detector trained on COCO, each with the vector that its decoder made of it."""

import contextlib
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from uwml_lib.datasets.raw.region_models import RegionModel, digest_of, from_the_hub, import_vision, read_weights
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.numerics import for_now

if TYPE_CHECKING:
    from PIL.Image import Image

DETECTOR = "D-FINE-L"
"""Of those in plain torch under Apache 2.0 the best on COCO for its size: 57.3 AP with 31 million weights by its own
table (Peng et al. 2024), RT-DETRv2-L 53.4, DETR 42.0. It has 300 queries, and learned Objects365 before COCO."""
HUB = "ustc-community/dfine-large-obj2coco-e25"
FILE = "model.safetensors"
"""Of the newest revision: none could be looked up when this was written. pictures.json keeps its digest."""
INPUT = 640
CONFIG: dict[str, Any] = {"num_labels": 80, "decoder_n_points": [3, 6, 3]}
"""In what D-FINE-L differs from the defaults of `transformers`."""


def detector_model(weights: Path | None = None, boxes: int = 36) -> RegionModel:
    """Build the detector, whose regions are its surest boxes, on the CPU.

    weights: safetensors, or a state dict of torch, instead of the file that is downloaded once. boxes: at most the
    queries of the detector, which is trained to find an object once, so that none are skipped for their overlap.
    Raises UWMLError for a number or a file that will not do, and where nothing can be downloaded.
    """
    library = import_vision("transformers.models.d_fine.modeling_d_fine")
    config = library.DFineConfig(**CONFIG)
    expect(0 < boxes <= config.num_queries, "boxes", boxes, f"1 to {config.num_queries}, the queries of {DETECTOR}")
    model = _with_weights(library.DFineForObjectDetection, config, weights or _downloaded())
    settings = {"detector": DETECTOR, "boxes": boxes, "transformers": version("transformers")}
    digest = digest_of(f"{DETECTOR} {INPUT} {CONFIG}", model)
    describe = partial(surest_boxes, model, boxes)
    return RegionModel(DETECTOR, model, _squared, describe, (boxes, config.d_model), boxes, settings, digest)


def surest_boxes(model: nn.Module, boxes: int, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the vectors (n, boxes, dim) and the corners (n, boxes, 4) of the surest boxes, the surest first.

    pixels: (n, 3, height, width) float32 in 0 to 1. A query is as sure as it is of its likeliest class. A vector is the
    decoder's last hidden state; corners are x1, y1, x2, y2 in fractions, cut off at the picture's edge. Float32, CPU.
    """
    with torch.inference_mode():
        found = model(pixels)
        sureness = found.logits.amax(dim=2)  # a sigmoid for every class, none for "no object"
        best = sureness.sort(dim=1, descending=True, stable=True).indices[:, :boxes, None]
        centres, sizes = found.pred_boxes.take_along_dim(best, dim=1).split(2, dim=2)
        corners = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=2).clamp(0, 1)
        return found.last_hidden_state.take_along_dim(best, dim=1).float().cpu(), corners.float().cpu()


def _squared(picture: "Image") -> Tensor:
    """Squeeze a picture into the square (3, INPUT, INPUT), 0 to 1, as in the detector's training."""
    from PIL.Image import Resampling

    pixels = np.asarray(picture.resize((INPUT, INPUT), Resampling.BILINEAR), np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _downloaded() -> Path:
    """Return the path of the weights, which are downloaded the first time."""
    from huggingface_hub import hf_hub_download

    with from_the_hub(DETECTOR, f"{FILE} from https://huggingface.co/{HUB}"):
        return Path(hf_hub_download(HUB, FILE))


def _with_weights(kind: Any, config: Any, path: Path) -> nn.Module:
    """Build a model with the weights of a file, under the names of this or an earlier version of transformers."""
    state = read_weights(path)
    try:
        with _silent():
            model, notes = kind.from_pretrained(
                None, config=config, state_dict=state, dtype=torch.float32, output_loading_info=True
            )
    except Exception as error:  # of shapes that are not this model's
        raise UWMLError(f"{path}: does not fit {DETECTOR} ({' '.join(str(error).split())[:200]})") from error
    missing = sorted(name for name in notes["missing_keys"] if not name.endswith("num_batches_tracked"))
    expect(not missing, path, f"no {', '.join(missing[:3])}", f"all {len(model.state_dict())} weights of {DETECTOR}")
    return model.eval()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep transformers from printing a table of the weights that do not fit: an error says it in a sentence."""
    from transformers.utils import logging

    def show_bar(shown: bool) -> None:
        (logging.enable_progress_bar if shown else logging.disable_progress_bar)()

    level = for_now(logging.get_verbosity, logging.set_verbosity, logging.CRITICAL)
    with level, for_now(logging.is_progress_bar_enabled, show_bar, False):
        yield
