"""`make reproduce`: data, all trainings side by side, the notebooks, the report; what is finished is not done again."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Literal

import torch

from uwml_lib import site
from uwml_lib.config import RUNS, ExperimentConfig, preset
from uwml_lib.datasets import EMBEDDED, SCENES, check_data, fingerprint, prepare_data
from uwml_lib.errors import UWMLError
from uwml_lib.files import lock, write_json
from uwml_lib.notebooks import all_notebooks, check_parameters, discard_stale, execute
from uwml_lib.progress import Say, duration, say
from uwml_lib.reporting import ExperimentName, Run, load_experiment, report_folder, report_text, save_experiment
from uwml_lib.training import check_config, train

LOSSES_COMPARED = ("triplet", "polynomial")
EPOCHS_WITHOUT_WARMUP = 4  # enough to see whether such a training gets going
Profile = Literal["full", "smoke"]


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


def run_folders(configs: Sequence[ExperimentConfig]) -> list[Path]:
    """Where the runs of configurations go, which must be of data that are there."""
    sources = {(config.data_folder, config.captions) for config in configs}
    data = {source: fingerprint(*source) for source in sources}
    return [RUNS / config.dataset / config.run_name(data[config.data_folder, config.captions]) for config in configs]


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


def workers(threads: int) -> int:
    """Trainings at a time: one on an accelerator, else as many as there are cores for."""
    if torch.accelerator.is_available():
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads)


def side_by_side(threads: int) -> SpawnContext:
    """Return what starts processes that train side by side, each with so many threads and without a bar."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["UWML_HEADLESS"] = "1"  # bars of several processes would overwrite each other
    return multiprocessing.get_context("spawn")


def train_side_by_side(configs: Sequence[ExperimentConfig], folders: Sequence[Path], say: Say = say) -> None:
    """Train every configuration in a process of its own; a failure is reported once the others are finished."""
    pending = [
        (config, folder)
        for config, folder in zip(configs, folders, strict=True)
        if not (folder / "results.json").exists()
    ]
    if len(pending) < len(configs):
        say(f"{len(configs) - len(pending)} of {len(configs)} runs were finished before")
    if not pending:
        return
    at_a_time = min(workers(configs[0].threads), len(pending))
    failures = []
    context = side_by_side(configs[0].threads)
    with ProcessPoolExecutor(at_a_time, context, die_with_parent) as pool:
        trainings = {pool.submit(train, config, folder): folder for config, folder in pending}
        try:
            for training in as_completed(trainings):
                if error := training.exception():
                    killed = "killed, or out of memory; the same command goes on from there"
                    words = killed if isinstance(error, BrokenProcessPool) else error
                    failures.append((f"{trainings[training].name}: {words}", error))
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    if failures:
        sentences, errors = zip(*failures, strict=True)
        count = f"{len(failures)} of {len(pending)} trainings failed; the others are kept:"
        raise UWMLError("\n".join((count, *sentences))) from errors[0]


def train_all(configs: Sequence[ExperimentConfig], say: Say = say) -> list[Run]:
    """Train what is not finished yet, in the usual folders, and return all runs, in order."""
    folders = run_folders(configs)
    train_side_by_side(configs, folders, say)
    return [Run.load(folder) for folder in folders]


def die_with_parent() -> None:
    """End a training when its parent ends, however that was, and by Ctrl-C without a traceback.

    The next call goes on after the last finished epoch.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def wait() -> None:
        multiprocessing.parent_process().join()  # type: ignore[union-attr]  # only ever called in a child
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def execute_notebooks(name: ExperimentName, dataset: str, parameters: dict[str, str], say: Say = say) -> None:
    """Execute an experiment's notebooks on its runs on a data set, into the data set's report folder."""
    os.environ["UWML_HEADLESS"] = "1"
    inputs = load_experiment(dataset, name).digest
    folder = report_folder(dataset)
    discard_stale(all_notebooks(name), parameters, folder, inputs)
    for notebook in all_notebooks(name):
        execute(notebook, parameters, folder, inputs, say)
