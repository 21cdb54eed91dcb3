"""`make reference`: copy what was found on a data set to reports/reference, where it is committed."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from uwml_lib.config import preset
from uwml_lib.datasets import EMBEDDED
from uwml_lib.reports.report import FINDINGS
from uwml_lib.runs.run import NUMBERS
from uwml_lib.runs.study_runs import StudyRuns, load_study, settings_that_differ
from uwml_lib.studies.committed import FILES, Committed
from uwml_lib.studies.notebooks import execute, is_current, paths_of
from uwml_lib.studies.study import Study
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import atomic_folder, lock, make_folder, read_json, write_json, write_text
from uwml_lib.support.paths import reference_folder, report_folder
from uwml_lib.support.progress import say

FIRST = "00_start_here"
"""The notebook that reads what is published, of all data sets; so it is executed again once that has changed."""


def publish(dataset: str, studies: Mapping[str, Study]) -> None:
    """Copy the executed notebooks, figures, tables and per-run JSON of all studies that ran on a data set.

    Of data that may not be passed on, numbers alone. Raises UWMLError if a notebook is missing or shows something else,
    or if the runs that are compared were made with other settings than the data set's preset.
    """
    source = report_folder(dataset)
    with lock(source):  # a study may be at work on it
        names = [name for name in studies if (paths.RUNS / dataset / f"{name}.json").exists()] or [next(iter(studies))]
        found = {studies[name]: load_study(dataset, name) for name in names}
        for study, runs in found.items():
            _check(study, runs, source)
        with lock(paths.REFERENCE), atomic_folder(reference_folder(dataset)) as folder:
            for kept in _kept(dataset):
                _copy(kept, folder / kept.name)
            _write_numbers(found, folder)
            chosen = [paths.RUNS / dataset / name for name in FILES]
            for path in filter(Path.exists, [*chosen, *(paths.SWEEPS / dataset).glob("alike-*")]):
                Committed(folder, dataset).add(path)
            if dataset in EMBEDDED:
                _copy_pictures(found, source, folder)
            else:
                for file in ("linear_cca.json", *(f"figures/{study.figure[0]}.png" for study in found)):
                    _copy(source / file, folder / Path(file).name)
        for study, runs in found.items():
            if FIRST in study.notebooks and dataset in EMBEDDED:
                with TemporaryDirectory() as anew:  # the copy that is there stays until another one is whole
                    copy = execute(paths.NOTEBOOKS / f"{FIRST}.ipynb", _parameters(runs), Path(anew), runs.digest, say)
                    for target in (source, reference_folder(dataset) / "notebooks"):
                        write_text(target / copy.name, copy.read_text(encoding="utf-8"))


def _kept(dataset: str) -> Sequence[Path]:
    """What stays of what was published before: what was measured apart from any run, or nobody could make again."""
    folder = reference_folder(dataset)
    if dataset not in EMBEDDED:
        return [folder / name for name in ("pilot", "runs", "sweeps")]
    others = {path.parent for name in ("runs", "sweeps") for path in folder.glob(f"*/{name}")}  # of other data
    return [paths.RELIABILITY, paths.PERFORMANCE, *others] if folder == paths.REFERENCE else []


def _check(study: Study, runs: StudyRuns, folder: Path) -> None:
    for run in runs.runs if study.publishes_preset else ():
        if other := settings_that_differ(run.config, preset(runs.dataset)):
            differs = f"it differs from the preset in {', '.join(other)}"
            raise UWMLError(f"{run.folder.name}: not a run to publish, for {differs}")
    for notebook in paths_of(study, runs.dataset) if runs.dataset in EMBEDDED else ():
        if not is_current(notebook, _parameters(runs), folder, runs.digest):
            advice = f"missing, or shows other runs or code; run `make {study.name}` again"
            raise UWMLError(f"{folder / notebook.name}: {advice}")


def _parameters(runs: StudyRuns) -> dict[str, str]:
    """What the notebooks of a study were executed with."""
    return {"DATASET": runs.dataset, "DATA_ROOT": runs.runs[0].config.data_root}


def _write_numbers(found: Mapping[Study, StudyRuns], folder: Path) -> None:
    """Write tables, the summary, what was found in sentences, and the runs and ensembles behind them, by study."""
    reports = {study: study.report(runs) for study, runs in found.items()}
    said = {study.name: {"findings": report.findings, "outcomes": report.outcomes} for study, report in reports.items()}
    write_json(folder / FINDINGS, said)
    for study, report in reports.items():
        _copy(paths.RUNS / found[study].dataset / f"{study.name}.json", folder / "studies" / f"{study.name}.json")
        write_text(folder / f"{study.table or study.name}.md", report.with_runs())
        if report.data:
            write_json(folder / f"{study.data or study.name}.json", report.data)
        for run in found[study].all_runs:
            for file in NUMBERS:
                _copy(run.folder / file, folder / "runs" / run.folder.name / file)
        for ensemble in found[study].ensembles:
            _copy(ensemble, folder / "evaluations" / ensemble.name)


def _copy_pictures(found: Mapping[Study, StudyRuns], source: Path, folder: Path) -> None:
    """Copy what shows the data: executed notebooks and figures; and how long those runs took, if that was noted."""
    noted = read_json(source / "durations.json") if (source / "durations.json").exists() else {}
    names = {study.name: [run.folder.name for run in runs.all_runs] for study, runs in found.items()}
    kept = {name: entry for name, entry in noted.items() if {*entry["runs"]} <= {*names.get(name, ())}}
    write_json(folder / "durations.json", kept)
    shutil.copytree(source / "figures", folder / "figures")
    for study, runs in found.items():
        for notebook in paths_of(study, runs.dataset):
            _copy(source / notebook.name, folder / "notebooks" / notebook.name)


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder, if it is there."""
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        make_folder(target.parent)
        shutil.copyfile(source, target)
