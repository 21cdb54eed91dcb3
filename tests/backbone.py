"""A small image model with random weights, for none can be downloaded by a test."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from uwml_lib.datasets.raw.grid_features import build_backbone

SMALL = "mobilenetv3_small_050"


def random_weights(folder: Path) -> Path:
    """Write weights of `SMALL` into a folder, the same ones each time."""
    torch.manual_seed(0)
    path = folder / "small.safetensors"
    save_file(build_backbone(SMALL, pretrained=False).model.state_dict(), path)
    return path
