"""A model to look at, where it matters little which: a trained one if there is one, else one trained for a moment."""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from uwml_lib.config import ExperimentConfig, preset
from uwml_lib.datasets import Vocabulary, prepare_data
from uwml_lib.models import Matcher
from uwml_lib.runs import load_model, load_study
from uwml_lib.support import paths
from uwml_lib.support.progress import counted
from uwml_lib.training.runner import train, with_batch_that_fits

SHORT: dict[str, Any] = {"epochs": 2, "warmup_epochs": 1, "decay_epoch": 2, "selection_images": 0}
"""What differs from the data set's preset in a short training."""


class Looked(NamedTuple):
    """A model in evaluation mode, on the CPU, with its settings and vocabulary; source: which it is, in words."""

    model: Matcher
    config: ExperimentConfig
    vocabulary: Vocabulary
    source: str


def model_to_look_at(dataset: str, data_root: str = "", loss: str = "polynomial", max_images: int = 300) -> Looked:
    """Return the model of a loss's first seed in `make reproduce`, or without such a run one that is trained now.

    The short training is of the data set's preset on `max_images` images, 0 for all; its run is not kept. Raises
    UWMLError where a run that is listed cannot be read, or where data for a training are missing.
    """
    listed = (paths.RUNS / dataset / "reproduce.json").exists()
    if runs := load_study(dataset).by_loss().get(loss) if listed else None:
        epochs = counted(runs[0].config.epochs, "epoch")
        source = f"{runs[0].folder.name}, which `make reproduce` trained for {epochs}"
        return Looked(*load_model(runs[0].folder, data_root), source)
    config = preset(dataset, data_root=data_root, loss=loss, max_images=max_images, **SHORT)
    prepare_data(config)
    with tempfile.TemporaryDirectory() as place:
        loaded = load_model(train(with_batch_that_fits(config), Path(place) / "short"))
    few = f"{max_images:,} images" if max_images else "all images"
    epochs = counted(config.epochs, "epoch")
    return Looked(*loaded, f"trained for a moment, {epochs} on {few}, for `make reproduce` has not been run")
