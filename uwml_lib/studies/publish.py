"""`make reference`: copy what was found on a data set to reports/reference, where it is committed."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from uwml_lib.config import preset
from uwml_lib.datasets import EMBEDDED
from uwml_lib.runs.study_runs import StudyRuns, load_study, settings_that_differ
from uwml_lib.studies.notebooks import is_current, paths_of
from uwml_lib.studies.study import Study
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import atomic_folder, lock, make_folder, read_json, write_json, write_text
from uwml_lib.support.paths import reference_folder, report_folder

Found = Mapping[Study, StudyRuns]


def publish(dataset: str, studies: Mapping[str, Study]) -> None:
    """Copy the executed notebooks, figures, tables and per-run JSON of all studies that ran on a data set.

    Of data that may not be passed on, numbers alone. Raises UWMLError if a notebook is missing or shows something else,
    or if the runs that are compared were made with other settings than the data set's preset.
    """
    with lock(report_folder(dataset)):  # a study may be at work on it
        names = [name for name in studies if (paths.RUNS / dataset / f"{name}.json").exists()] or [next(iter(studies))]
        found = {studies[name]: load_study(dataset, name).without_tuning() for name in names}
        for study, runs in found.items():
            if study.publishes_preset:
                _check_settings(runs)
            if dataset in EMBEDDED:
                _check_notebooks(study, load_study(dataset, study.name))
        with lock(paths.REFERENCE), atomic_folder(reference_folder(dataset)) as folder:
            if folder.parent == paths.REFERENCE.parent:
                _keep_others(folder)
            _write_numbers(found, folder)
            if dataset in EMBEDDED:
                _copy_pictures(found, report_folder(dataset), folder)
            else:
                for file in ("figures/recall_curves.png", "linear_cca.json"):
                    _copy(report_folder(dataset) / file, folder / Path(file).name)


def _copy_pictures(found: Found, source: Path, folder: Path) -> None:
    """Copy what shows the data: executed notebooks and figures; and how long those runs took, if that was noted."""
    for study in found:
        for notebook in paths_of(study):
            _copy(source / notebook.name, folder / "notebooks" / notebook.name)
    shutil.copytree(source / "figures", folder / "figures")
    names = {study.name: [run.folder.name for run in runs.all_runs] for study, runs in found.items()}
    noted = read_json(source / "durations.json") if (source / "durations.json").exists() else {}
    kept = {name: entry for name, entry in noted.items() if entry["runs"] == names.get(name)}
    write_json(folder / "durations.json", kept)


def _keep_others(folder: Path) -> None:
    """Copy what is in reports/reference and not of `scenes`: measured apart from any run, or of other data sets."""
    _copy(paths.RELIABILITY, folder / paths.RELIABILITY.name)
    if paths.PERFORMANCE.exists():
        shutil.copytree(paths.PERFORMANCE, folder / paths.PERFORMANCE.name)
    for other in paths.REFERENCE.glob("*/runs"):
        shutil.copytree(other.parent, folder / other.parent.name)


def _check_settings(study: StudyRuns) -> None:
    usual = preset(study.dataset)
    for run in study.runs:
        if other := settings_that_differ(run.config, usual):
            raise UWMLError(
                f"{run.folder.name}: not a run to publish, for it differs from the preset in {', '.join(other)}"
            )


def _check_notebooks(study: Study, runs: StudyRuns) -> None:
    parameters = {"DATASET": runs.dataset, "DATA_ROOT": runs.runs[0].config.data_root}
    folder = report_folder(runs.dataset)
    for notebook in paths_of(study):
        if not is_current(notebook, parameters, folder, runs.digest):
            raise UWMLError(
                f"{folder / notebook.name}: missing, or shows other runs or code; run `make {study.name}` again"
            )


def _write_numbers(found: Found, folder: Path) -> None:
    """Write tables, the summary and the runs behind them."""
    for study, runs in found.items():
        report = study.report(runs)
        write_text(folder / f"{study.table}.md", report.with_runs())
        if report.data:
            write_json(folder / "summary.json", report.data)
        for run in runs.all_runs:
            for file in ("config.json", "results.json", "metrics.jsonl"):
                _copy(run.folder / file, folder / "runs" / run.folder.name / file)


def _copy(source: Path, target: Path) -> None:
    """Copy a file, if it is there."""
    if source.exists():
        make_folder(target.parent)
        shutil.copyfile(source, target)
