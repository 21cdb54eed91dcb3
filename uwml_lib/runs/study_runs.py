"""The runs of one study on one data set, in groups, and the file beside the run folders that lists them."""

import hashlib
import itertools
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from uwml_lib.config import PRESETS, ExperimentConfig, is_folder_name
from uwml_lib.runs.run import Run
from uwml_lib.runs.scoring import evaluation_file
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, read_sealed_json, write_json

OF_A_LOSS = (
    "loss_options", "learning_rate", "batch_size", "warmup_epochs", "lambda_softmax", "epochs", "decay_epoch",
)  # fmt: skip
"""Settings that each loss may have its own of, as `settings.json` gives them; all runs of a loss have the same."""


@dataclass(frozen=True)
class StudyRuns:
    """The finished runs of a study on a data set: group -> runs. Those of the group "runs" are compared; they differ in
    loss, model and seed. Each study says what its other groups are.
    """

    dataset: str
    groups: Mapping[str, tuple[Run, ...]]

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs that are compared."""
        return self.groups["runs"]

    def __getitem__(self, group: str) -> tuple[Run, ...]:
        """The runs of a group; none if this study has none such."""
        return self.groups.get(group, ())

    @property
    def all_runs(self) -> tuple[Run, ...]:
        """Every run once, those that are compared first."""
        runs = (*self.runs, *(run for group in self.groups.values() for run in group))
        return tuple({run.folder: run for run in runs}.values())

    @property
    def split(self) -> str:
        """The split that was evaluated."""
        return self.runs[0].results["split"]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be said of the number of images, see `Run.remarks`."""
        return self.runs[0].remarks

    @property
    def digest(self) -> str:
        """A digest of what the notebooks read of the runs."""
        read = [[run.results[name] for name in ("config", "metrics", "ranks")] for run in self.all_runs]
        return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()

    def by_loss(self) -> dict[str, list[Run]]:
        """Loss -> its runs in order of the seed."""
        found: dict[str, list[Run]] = {run.config.loss: [] for run in self.runs}
        for run in sorted(self.runs, key=lambda run: run.seed):
            found[run.config.loss].append(run)
        return found

    def by_model(self) -> dict[str, dict[str, list[Run]]]:
        """Model -> loss -> its runs by seed; last SCAN's ensemble, if its two directions were scored together.

        A model is called "dense form" if that of the loss trained it to the end, with every loss and seed.
        """
        runs = [*self.runs, *(Run.of(file, read_sealed_json(file)) for file in self.ensembles)]
        found = {}
        for model in dict.fromkeys(run.model for run in runs):
            its = tuple(run for run in runs if run.model == model)
            title = f"{model}, dense form" if all(run.dense_alone for run in its) else model
            found[title] = StudyRuns(self.dataset, {"runs": its}).by_loss()
        return found

    @property
    def ensembles(self) -> list[Path]:
        """The files of SCAN's ensembles that were scored."""
        pairs = ([run.folder.name for run in pair] for pair in self.scan_pairs())
        return [file for pair in pairs if (file := evaluation_file(self.dataset, pair, self.split)).exists()]

    def scan_pairs(self) -> list[tuple[Run, Run]]:
        """SCAN's runs in pairs of one loss and seed, i2t and t2i: each is an ensemble as SCAN's authors have it."""
        of = {(run.config.direction, run.config.loss, run.seed): run for run in self.runs if run.config.model == "scan"}
        return [(of[key], of["t2i", *key[1:]]) for key in of if key[0] == "i2t" and ("t2i", *key[1:]) in of]

    def check_comparable(self) -> None:
        """Raise UWMLError for runs that are one, share loss and seed, or differ in more than loss, options and seed."""
        for other, run in itertools.combinations(self.runs, 2):
            both, same_loss = f"{other.folder.name} and {run.folder.name}", run.config.loss == other.config.loss
            if run.folder.resolve() == other.folder.resolve():
                raise UWMLError(f"{self.dataset}: {both} are one run listed twice, expected once")
            if same_loss and run.seed == other.seed:
                are = f"are both {run.config.loss} with the seed {run.seed}"
                raise UWMLError(f"{self.dataset}: {both} {are}, expected one run of each")
            names = settings_that_differ(run.config, other.config)
            names += ["split"] if run.results["split"] != other.results["split"] else []
            if names := [name for name in names if same_loss or name not in OF_A_LOSS]:
                differs = f"{run.folder.name} differs from {other.folder.name} in {', '.join(names)}"
                raise UWMLError(f"{self.dataset}: {differs}, expected runs that differ in the loss and the seed alone")


def settings_that_differ(a: ExperimentConfig, b: ExperimentConfig) -> list[str]:
    """Names of the settings, other than loss and seed, that can change a result and differ."""
    there = b.identity
    return [name for name, value in a.identity.items() if name not in ("loss", "seed") and value != there[name]]


def save_study(dataset: str, study: str, groups: Mapping[str, Sequence[Run]]) -> StudyRuns:
    """Note which run folders belong to which group of a study on a data set, and return them as such."""
    listed = {group: [run.folder.name for run in runs] for group, runs in groups.items()}
    write_json(paths.RUNS / dataset / f"{study}.json", listed)
    return StudyRuns(dataset, {group: tuple(runs) for group, runs in groups.items()})


def load_study(dataset: str, study: str = "reproduce") -> StudyRuns:
    """Load what a study ran last on a data set; raises UWMLError if there is nothing."""
    path = paths.RUNS / dataset / f"{study}.json"
    if Path(dataset).name != dataset or not path.exists():
        near = get_close_matches(dataset, [found.parent.name for found in paths.RUNS.glob(f"*/{study}.json")], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        if (small := f"{dataset}_smoke") in PRESETS:
            hint = f'; `make {study} PROFILE=smoke` and DATASET = "{small}" show it in small'
        command = f"make {study} DATASET={shlex.quote(dataset)}"
        raise UWMLError(f"no finished runs on {dataset} yet: `{command}` makes them{hint}")
    groups = read_json(path)
    for group, listed in groups.items():
        runs = listed if isinstance(listed, list) else [None]
        if not all(isinstance(run, str) and is_folder_name(run) for run in runs):
            raise UWMLError(f"{path}: {group}: found {listed!r}, expected names of run folders")
    if not groups.get("runs"):
        raise UWMLError(f"{path}: lists no runs")
    loaded = {group: tuple(Run.load(paths.RUNS / dataset / run) for run in listed) for group, listed in groups.items()}
    return StudyRuns(dataset, loaded)
