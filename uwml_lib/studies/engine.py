"""What every study does: prepare, train, execute the notebooks, report."""

import os
import time
from collections.abc import Sequence
from typing import Literal

from uwml_lib.config import ExperimentConfig, preset
from uwml_lib.datasets import EMBEDDED, check_data, prepare_data
from uwml_lib.runs.groups import ExperimentName, load_experiment
from uwml_lib.studies.notebooks import all_notebooks, check_parameters, discard_stale, execute
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.paths import report_folder
from uwml_lib.support.progress import Say, say

LOSSES_COMPARED = ("triplet", "polynomial")
Profile = Literal["full", "smoke"]


def prepare(name: ExperimentName, config: ExperimentConfig, say: Say = say) -> dict[str, str]:
    """See that notebooks and data will do before anything long; return the notebooks' parameters."""
    parameters = {"DATASET": config.dataset, "DATA_ROOT": config.data_root}
    for notebook in all_notebooks(name):
        check_parameters(notebook, parameters)
    prepare_data(config, say)
    if (varying := check_data(config)[0].varying) != (name == "videos"):
        what, target = ("unequal", "videos") if varying else ("equal", "reproduce")
        raise UWMLError(
            f"{config.data_folder}: has items of {what} numbers of regions, which are for `make {target} "
            f"DATASET={config.dataset}`"
        )
    return parameters


class Clock:
    """Seconds each step took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def stop(self, step: str) -> None:
        """Note the time since the last stop."""
        now = time.monotonic()
        self.seconds[step] = round(now - self._last, 1)
        self._last = now


def base_config(dataset: str, data_root: str, epochs: int | None, profile: Profile) -> ExperimentConfig:
    """Return the data set's preset, or what is tiny enough for a smoke test; epochs: None means the preset's."""
    overrides: dict = {"data_root": data_root}
    if profile == "smoke":
        if dataset in EMBEDDED:
            dataset = f"{dataset.removesuffix('_smoke')}_smoke"
        else:
            overrides |= {"embed_size": 32, "word_dim": 16, "max_images": 200, "epochs": 2, "decay_epoch": 1}
            overrides["selection_images"] = min(50, preset(dataset).selection_images)
    if epochs is not None:
        overrides["epochs"] = epochs
    return preset(dataset, **overrides)


def check_seeds(seeds: Sequence[int]) -> list[int]:
    """Return the seeds; raises UWMLError unless there is at least one, each once."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise UWMLError(f"seeds: found {list(seeds)}, expected at least one, each once")
    return list(seeds)


def execute_notebooks(name: ExperimentName, dataset: str, parameters: dict[str, str], say: Say = say) -> None:
    """Execute an experiment's notebooks on its runs on a data set, into the data set's report folder."""
    os.environ["UWML_HEADLESS"] = "1"
    inputs = load_experiment(dataset, name).digest
    folder = report_folder(dataset)
    discard_stale(all_notebooks(name), parameters, folder, inputs)
    for notebook in all_notebooks(name):
        execute(notebook, parameters, folder, inputs, say)
