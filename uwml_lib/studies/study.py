"""What a study is: an experiment of many runs, the notebooks that show them, and the report made of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from uwml_lib.config import ExperimentConfig
from uwml_lib.reports.report import Report
from uwml_lib.runs import Run, StudyRuns
from uwml_lib.studies.committed import Committed
from uwml_lib.studies.side_by_side import train_all
from uwml_lib.studies.tuned import Tuned, of_loss
from uwml_lib.support import paths
from uwml_lib.support.progress import Say

Losses = Mapping[str, Sequence[dict[str, Any]]]
"""Loss -> the loss options to train it with."""
TWO_LOSSES: Losses = {"triplet": [{}], "polynomial": [{}]}
Plan = dict[str, list[ExperimentConfig]]
"""Group of runs -> the settings to train; the group "runs" are those that are compared."""
Groups = dict[str, list[Run]]


@dataclass(frozen=True)
class Request:
    """What was asked of a study: the data set's settings, the seeds, and whether a tiny test of it will do.

    tuned: settings of the losses that differ from the data set's. committed: what is known from elsewhere, and where
    what is finished goes besides.
    """

    base: ExperimentConfig
    seeds: Sequence[int]
    smoke: bool
    say: Say
    tuned: Tuned = field(default_factory=dict)
    committed: Committed | None = None

    @property
    def folder(self) -> Path:
        """Folder of the data set's runs."""
        return paths.RUNS / self.base.dataset

    def grid(self, *settings: Mapping[str, Any], losses: Losses = TWO_LOSSES) -> list[ExperimentConfig]:
        """Every setting with every seed and every loss."""
        of = [of_loss(self.tuned, loss, **options) for loss, several in losses.items() for options in several]
        return [
            replace(self.base, **{**loss, **changes}, seed=seed)
            for changes, seed, loss in product(settings, self.seeds, of)
        ]

    def once(self) -> "Request":
        """The same with the first seed alone."""
        return replace(self, seeds=self.seeds[:1])

    def train(self, configs: Sequence[ExperimentConfig]) -> list[Run]:
        """Train what is not finished, see `train_all`."""
        return train_all(configs, self.say, self.keep)

    def keep(self, path: Path) -> None:
        """Copy what is finished to where it is committed, if anywhere; see `Committed.add`."""
        if self.committed:
            self.committed.add(path)


@dataclass(frozen=True)
class Study:
    """A study: one record, in one file of this folder.

    name: of the make target, the command, and the file that lists its runs. notebooks: stems of those that show it.
    report: what is said of the runs. plan: what to train, as far as it is known beforehand. more: what can only be
    trained, or scored, once the planned runs are there: further groups. seeds: unless others are given; smoke_seeds:
    for a tiny test. sequences: is for items of unequal numbers of regions, as videos of frames. next: a hint at the
    end. table, data: stems of the files of its table and of its report's data below reports/reference, if not its name.
    publishes_preset: only runs with the settings of the data set's preset are published. title, figure: what its pages
    are called, and the figure on them: its stem, and what it shows.
    """

    name: str
    notebooks: tuple[str, ...]
    report: Callable[[StudyRuns], Report]
    plan: Callable[[Request], Plan] = lambda request: {}
    more: Callable[[Request, Groups], Groups] = lambda request, groups: {}
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    smoke_seeds: tuple[int, ...] = (0,)
    sequences: bool = False
    next: str = ""
    table: str = ""
    data: str = ""
    publishes_preset: bool = False
    title: str = ""
    figure: tuple[str, str] = ("", "")

    @property
    def usual_dataset(self) -> str:
        """The data set of the command, unless another is named."""
        return "clips" if self.sequences else "scenes"
