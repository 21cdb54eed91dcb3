"""What every study does: prepare, train side by side, execute the notebooks, report. What is finished is not redone."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from uwml_lib.config import ExperimentConfig, preset
from uwml_lib.datasets import EMBEDDED, check_data, prepare_data
from uwml_lib.reports.report import Report
from uwml_lib.reports.site import site
from uwml_lib.runs.study_runs import StudyRuns, save_study
from uwml_lib.studies.notebooks import check_parameters, execute_all, paths_of
from uwml_lib.studies.side_by_side import run_folders, workers
from uwml_lib.studies.study import Request, Study
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import lock, read_json, write_json
from uwml_lib.support.paths import report_folder
from uwml_lib.support.progress import Say, duration, say
from uwml_lib.training.checks import check_config, check_model_fits

SEEDS = (0, 1, 2)
Profile = Literal["full", "smoke"]


def run_study(
    study: Study,
    dataset: str = "",
    data_root: str = "",
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    profile: Profile = "full",
    say: Say = say,
) -> tuple[StudyRuns, Report]:
    """Run a study from the data to its report; return its runs too. Called again it goes on, and does no work twice.

    dataset: "" is the study's own. seeds: None means 0, 1, 2 (smoke: the study's). epochs: None means the preset's.
    profile: "smoke" is the same, tiny. Raises UWMLError, before anything long, for what cannot work.
    """
    clock = Clock()
    base = base_config(dataset or study.dataset, data_root, epochs, profile)
    smoke = profile == "smoke"
    request = Request(
        base, check_seeds(seeds if seeds is not None else study.smoke_seeds if smoke else SEEDS), smoke, say
    )
    check_config(base)
    say(f"1/4 data: {base.dataset}")
    parameters = _prepare(study, request)
    plan = study.plan(request)
    configs = [config for group in plan.values() for config in group]
    _check(configs)
    clock.stop("data")
    fresh = not any(folder.exists() for folder in run_folders(configs))
    with lock(report_folder(base.dataset), say):
        say(f"2/4 training: {len(configs)} runs, {workers(base.threads)} at a time")
        trained = iter(request.train(configs))
        groups = {name: [next(trained) for _ in group] for name, group in plan.items()}
        groups |= study.more(request, groups)
        runs = save_study(base.dataset, study.name, groups)
        clock.stop("training")
        say("3/4 notebooks")
        execute_all(paths_of(study), parameters, report_folder(base.dataset), runs.digest, say)
        clock.stop("notebooks")
        say("4/4 report")
        report = study.report(runs)
        if fresh:  # of a study that went on from earlier work the durations would promise too much
            _note_durations(study, runs, clock)
        index = build_pages(say)
        clock.stop("report")
    say(f"\n{report.to_markdown()}\nDone in {duration(sum(clock.seconds.values()))}. Report: {index}")
    if study.next:
        say(study.next)
    return runs, report


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
    overrides: dict[str, Any] = {"data_root": data_root}
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


def build_pages(say: Say = say) -> Path:
    """Build all pages and return the index."""
    from uwml_lib.studies import STUDIES

    return site.build([(study.name, study.notebooks, study.report) for study in STUDIES.values()], say)


def _prepare(study: Study, request: Request) -> dict[str, str]:
    """See that notebooks and data will do; return the notebooks' parameters."""
    config = request.base
    parameters = {"DATASET": config.dataset, "DATA_ROOT": config.data_root}
    for notebook in paths_of(study):
        check_parameters(notebook, parameters)
    prepare_data(config, request.say)
    if (varying := check_data(config)[0].varying) != study.sequences:
        what, target = ("unequal", "videos") if varying else ("equal", "reproduce")
        raise UWMLError(
            f"{config.data_folder}: has items of {what} numbers of regions, which are for `make {target} "
            f"DATASET={config.dataset}`"
        )
    return parameters


def _check(configs: Sequence[ExperimentConfig]) -> None:
    for config in configs:
        check_config(config)
    for config in {(config.model, config.batch_size, config.captions): config for config in configs}.values():
        check_model_fits(config)


def _note_durations(study: Study, runs: StudyRuns, clock: Clock) -> None:
    path = report_folder(runs.dataset) / "durations.json"
    noted = read_json(path) if path.exists() else {}
    entry = {"seconds": clock.seconds, "runs": [run.folder.name for run in runs.all_runs]}
    write_json(path, {**noted, study.name: entry})
