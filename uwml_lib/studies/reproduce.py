"""`make reproduce`: data, all trainings side by side, the notebooks, the report; what is finished is not done again."""

from collections.abc import Sequence
from dataclasses import replace

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import SCENES
from uwml_lib.reports.site import site
from uwml_lib.reports.text import report_text
from uwml_lib.runs.groups import load_experiment, save_experiment
from uwml_lib.studies.engine import (
    LOSSES_COMPARED,
    Clock,
    Profile,
    base_config,
    check_seeds,
    execute_notebooks,
    prepare,
)
from uwml_lib.studies.side_by_side import run_folders, train_side_by_side, workers
from uwml_lib.support.files import lock, write_json
from uwml_lib.support.paths import report_folder
from uwml_lib.support.progress import Say, duration, say
from uwml_lib.training.checks import check_config

EPOCHS_WITHOUT_WARMUP = 4  # enough to see whether such a training gets going


def reproduce(
    dataset: str = "scenes",
    data_root: str = "",
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    profile: Profile = "full",
    say: Say = say,
) -> str:
    """Run the whole pipeline and return the report's text.

    seeds: None means 0, 1, 2 (smoke: 0, 1). epochs: None means the preset's. profile: "smoke" is the same, tiny.
    """
    configs, without_warmup = planned_runs(dataset, data_root, seeds, epochs, profile)
    every = [*configs, *without_warmup]
    for config in every:
        check_config(config)
    clock = Clock()
    dataset = configs[0].dataset
    say(f"1/4 data: {dataset}")
    parameters = prepare("reproduce", configs[0], say)
    clock.stop("data")
    folders = run_folders(every)
    fresh = not any(folder.exists() for folder in folders)
    with lock(report_folder(dataset), say):
        say(f"2/4 training: {len(every)} runs, {workers(configs[0].threads)} at a time")
        train_side_by_side(every, folders, say)
        save_experiment(dataset, runs=folders[: len(configs)], without_warmup=folders[len(configs) :])
        clock.stop("training")
        say("3/4 notebooks")
        execute_notebooks("reproduce", dataset, parameters, say)
        clock.stop("notebooks")
        say("4/4 report")
        index = site.build(say)
        text = report_text(load_experiment(dataset))
        clock.stop("report")
        if fresh:  # of a run that went on from earlier work the durations would promise too much
            durations = {"seconds": clock.seconds, "runs": [folder.name for folder in folders]}
            write_json(report_folder(dataset) / "durations.json", durations)
    say(f"\n{text}\nDone in {duration(sum(clock.seconds.values()))}. Report: {index}")
    say("Next: open that page in a browser; `make lab` for the notebooks; `make compare` for every loss, tuned alike.")
    return text


def planned_runs(
    dataset: str, data_root: str, seeds: Sequence[int] | None, epochs: int | None, profile: Profile
) -> tuple[list[ExperimentConfig], list[ExperimentConfig]]:
    """Return the configurations to compare, and those trained without warm-up to see what it is good for."""
    base = base_config(dataset, data_root, epochs, profile)
    seeds = check_seeds(seeds if seeds is not None else (0, 1) if profile == "smoke" else (0, 1, 2))
    configs = [replace(base, loss=loss, seed=seed) for seed in seeds for loss in LOSSES_COMPARED]
    if not base.warmup_epochs or base.dataset not in SCENES:  # once is enough, where it costs least
        return configs, []
    few = min(base.epochs, EPOCHS_WITHOUT_WARMUP)
    return configs, [replace(base, loss=loss, seed=seeds[0], warmup_epochs=0, epochs=few) for loss in LOSSES_COMPARED]
