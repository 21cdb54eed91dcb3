"""Numbers of finished work in a folder under version control, which outlives the folders of the runs themselves."""

import functools
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import fingerprint
from uwml_lib.runs.run import NUMBERS
from uwml_lib.support import paths
from uwml_lib.support.errors import expect, reading
from uwml_lib.support.files import atomic_folder, atomic_path, read_json, write_json

JOURNAL = "journal.log"
FILES = ("settings.json", "tuning.json", "coefficients.json", "scores.json")
"""Beside the runs: what was chosen, what was tried, which coefficients were fitted, where the scores lie."""
INSTEAD = "on the terms of this study; --settings {}/settings.json takes what was chosen, another folder what is done"


@dataclass(frozen=True)
class Committed:
    """What is known of trainings on a data set; layout: `runs/NAME/`, `sweeps/NAME/journal.log`, and files.

    folder: such as reports/reference/f8k_regions.
    """

    folder: Path
    dataset: str

    def check(self, config: ExperimentConfig) -> None:
        """Raise UWMLError for runs of other data or in another precision, which would not count."""
        of_data = functools.cache(fingerprint)
        for path in sorted(self.folder.glob("runs/*/config.json")):
            about = read_json(path)
            with reading(path, "the settings of a run"):
                run, digest = ExperimentConfig.from_dict(about["config"]), about["data"]
            pairs = [(name, getattr(run, name), getattr(config, name)) for name in ("dataset", "mixed_precision")]
            differ = [f"{name} {found}, not {wanted}" for name, found, wanted in pairs if found != wanted]
            if not differ and digest != of_data(config.data_folder, run.captions):
                differ.append("other data, splits or tokenizer (nltk's Punkt is there or not)")
            expect(not differ, path, "; ".join(differ), f"runs {INSTEAD.format(self.folder)}")

    def take(self) -> int:
        """Copy runs and sweeps that are missing among the reports, and what the files say: it then counts as done.

        Returns the number of runs copied.
        """
        runs = [self._copy(folder, paths.RUNS / self.dataset / folder.name) for folder in self.folder.glob("runs/*")]
        for folder in self.folder.glob("sweeps/*"):
            self._copy(folder, paths.SWEEPS / self.dataset / folder.name)
        for file in filter(Path.exists, (self.folder / name for name in FILES)):
            local = paths.RUNS / self.dataset / file.name
            write_json(local, {**(read_json(local) if local.exists() else {}), **read_json(file)})
        return sum(runs)

    def add(self, path: Path) -> None:
        """Copy the numbers of a finished run, the journal of a sweep, or a file, that there is something new in."""
        if path.is_file():
            _copy_file(path, self.folder / path.name, replace=True)
        elif (path / JOURNAL).exists():
            with FileLock(path / f"{JOURNAL}.lock"):  # else a line may be half written
                _copy_file(path / JOURNAL, self.folder / "sweeps" / path.name / JOURNAL, replace=True)
        else:
            for name in NUMBERS:
                _copy_file(path / name, self.folder / "runs" / path.name / name)

    @staticmethod
    def _copy(source: Path, target: Path) -> bool:
        """Copy a folder's files in place of nothing; say whether there was nothing."""
        if target.exists():
            return False
        with atomic_folder(target) as temporary:
            for file in sorted(source.iterdir()):
                shutil.copy2(file, temporary)  # as old as it is: it was not made now
        return True


def _copy_file(source: Path, target: Path, replace: bool = False) -> None:
    if replace or not target.exists():
        with atomic_path(target) as temporary:
            shutil.copy2(source, temporary)  # as old as it is: it was not made now
