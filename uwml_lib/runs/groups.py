"""The runs of one study on one data set, in groups."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from uwml_lib.config import PRESETS
from uwml_lib.runs.run import Run
from uwml_lib.runs.scoring import evaluation_file
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, read_sealed_json, write_json

ExperimentName = Literal["reproduce", "compare", "fidelity", "models", "videos"]
FILES: dict[ExperimentName, str] = {
    "reproduce": "experiment.json", "compare": "comparison.json", "fidelity": "fidelity.json",
    "models": "models.json", "videos": "videos.json",
}  # fmt: skip
"""Make target -> file, beside the run folders, that says which of them belong to it."""


@dataclass(frozen=True)
class Experiment:
    """The runs of one make target, which differ in loss, model and seed alone, and the runs around them.

    without_warmup: of `make reproduce`. tuning, coefficients, coefficient_tuning: of `make compare`. released: of
    `make fidelity`, the same trainings with habits of the released code.
    """

    dataset: str
    runs: tuple[Run, ...]
    without_warmup: tuple[Run, ...] = ()
    tuning: tuple[Run, ...] = ()
    coefficients: tuple[Run, ...] = ()
    coefficient_tuning: tuple[Run, ...] = ()
    released: tuple[Run, ...] = ()

    def by_loss(self) -> dict[str, list[Run]]:
        """Loss -> its runs in order of the seed."""
        losses = dict.fromkeys(run.config["loss"] for run in self.runs)
        return {
            loss: sorted((run for run in self.runs if run.config["loss"] == loss), key=lambda run: run.config["seed"])
            for loss in losses
        }

    @property
    def all_runs(self) -> tuple[Run, ...]:
        """Every run, those that are compared first."""
        return tuple(run for group in GROUPS for run in getattr(self, group))

    @property
    def digest(self) -> str:
        """A digest of what the notebooks read of the runs."""
        read = [[run.results[name] for name in ("config", "metrics", "ranks")] for run in self.all_runs]
        return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()

    @property
    def split(self) -> str:
        """The split that was evaluated."""
        return self.runs[0].results["split"]


GROUPS = tuple(field.name for field in fields(Experiment) if field.name != "dataset")


def save_experiment(dataset: str, name: ExperimentName = "reproduce", **groups: Sequence[Path]) -> None:
    """Note which run folders belong to which group of an experiment on a data set; see `Experiment` for the groups."""
    write_json(paths.RUNS / dataset / FILES[name], {group: [run.name for run in groups[group]] for group in groups})


def load_experiment(dataset: str, name: ExperimentName = "reproduce") -> Experiment:
    """Load what a make target ran last on a data set; raises UWMLError if there is nothing."""
    path = paths.RUNS / dataset / FILES[name]
    if Path(dataset).name != dataset or not path.exists():
        near = get_close_matches(dataset, [path.parent.name for path in paths.RUNS.glob(f"*/{FILES[name]}")], n=1)
        small = f"{dataset}_smoke"
        hint = f"; did you mean {near[0]}?" if near else ""
        if small in PRESETS:
            hint = f'; `make {name} PROFILE=smoke` and DATASET = "{small}" show it in small'
        raise UWMLError(f"no finished runs on {dataset} yet: `make {name} DATASET={dataset}` makes them{hint}")
    groups = read_json(path)
    for group, listed in groups.items():
        if group not in GROUPS:
            raise UWMLError(f"{path}: found {group!r}, expected some of {', '.join(GROUPS)}")
        if not isinstance(listed, list) or not all(map(_is_name, listed)):
            raise UWMLError(f"{path}: {group}: found {listed!r}, expected names of run folders")
    if not groups.get("runs"):
        raise UWMLError(f"{path}: lists no runs")
    loaded = {group: tuple(Run.load(paths.RUNS / dataset / run) for run in listed) for group, listed in groups.items()}
    return Experiment(dataset, **loaded)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and Path(value).name == value


def by_model(experiment: Experiment) -> dict[str, dict[str, list[Run]]]:
    """Model -> loss -> its runs in order of the seed; after SCAN's two directions their ensemble, where it is there."""
    found: dict[str, dict[str, list[Run]]] = {}
    for run in (*experiment.runs, *_ensembles(experiment)):
        found.setdefault(run.model, {}).setdefault(run.config["loss"], []).append(run)
    for by_loss in found.values():
        for runs in by_loss.values():
            runs.sort(key=lambda run: run.config["seed"])
    return found


def scan_pairs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """SCAN's runs in pairs of one loss and seed, i2t and t2i: each is an ensemble as SCAN's authors have it."""
    scan = [run for run in runs if run.config["model"] == "scan"]
    of = {(run.config["direction"], run.config["loss"], run.config["seed"]): run for run in scan}
    return [(of[key], of["t2i", *key[1:]]) for key in of if key[0] == "i2t" and ("t2i", *key[1:]) in of]


def _ensembles(experiment: Experiment) -> list[Run]:
    """What `uwml evaluate` found for pairs of SCAN's runs."""
    pairs = scan_pairs(experiment.runs)
    names = [[run.folder.name for run in pair] for pair in pairs]
    files = [evaluation_file(experiment.dataset, pair, experiment.split) for pair in names]
    return [Run(file, read_sealed_json(file)) for file in files if file.exists()]
