"""Trainings side by side, each in a process of its own."""

import contextlib
import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext
from pathlib import Path
from unittest import mock

import torch

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import fingerprint
from uwml_lib.runs.run import Run
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.progress import Say, counted, say
from uwml_lib.training.processes import die_with_parent
from uwml_lib.training.runner import check_config, check_model_fits, train
from uwml_lib.training.trainer import Diverged


def check_runs(configs: Sequence[ExperimentConfig]) -> None:
    """Raise UWMLError for runs that cannot be trained; their data must be there."""
    for config in configs:
        check_config(config)
    for config in {(config.model, config.batch_size, config.captions): config for config in configs}.values():
        check_model_fits(config)


def run_folders(configs: Sequence[ExperimentConfig]) -> list[Path]:
    """Where the runs of configurations go, which must be of data that are there."""
    of_data = functools.cache(fingerprint)
    names = [config.run_name(of_data(config.data_folder, config.captions)) for config in configs]
    return [paths.RUNS / config.dataset / name for config, name in zip(configs, names, strict=True)]


def workers(threads: int) -> int:
    """Trainings at a time: one on an accelerator, else as many as there are cores for."""
    if torch.accelerator.is_available():
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads)


@contextlib.contextmanager
def side_by_side(threads: int) -> Iterator[SpawnContext]:
    """Yield what starts processes that train side by side, each with so many threads and without a bar."""
    # Bars would overwrite each other; OpenMP reads its variable when a process starts.
    with mock.patch.dict(os.environ, OMP_NUM_THREADS=str(threads), UWML_HEADLESS="1"):
        yield multiprocessing.get_context("spawn")


def train_all(
    configs: Sequence[ExperimentConfig], say: Say = say, finished: Callable[[Path], None] | None = None
) -> list[Run]:
    """Train what is not finished yet, each in a process of its own and the usual folder; return all runs, in order.

    finished: called with the folder of each run as soon as it is, and of those that were before. A failure is a
    UWMLError once the others are finished: `Diverged` if no training failed for another reason.
    """
    folders, failures, kinds = run_folders(configs), dict[str, list[str]](), set[type]()
    pending = [pair for pair in zip(configs, folders, strict=True) if not (pair[1] / "results.json").exists()]
    if len(pending) < len(configs):
        say(f"finished before: {len(configs) - len(pending)} of {counted(len(configs), 'run')}")
    if finished:
        for folder in {*folders} - {folder for _, folder in pending}:  # a kill may have come between
            finished(folder)
    if not pending:
        return [Run.load(folder) for folder in folders]
    threads = configs[0].threads
    with (
        side_by_side(threads) as context,
        ProcessPoolExecutor(min(workers(threads), len(pending)), context, die_with_parent) as pool,
    ):
        trainings = {pool.submit(train, config, folder): folder.name for config, folder in pending}
        try:
            for training in as_completed(trainings):
                if error := training.exception():
                    killed = "killed, or out of memory; the same command goes on from there"
                    why = killed if isinstance(error, BrokenProcessPool) else str(error)
                    name = trainings[training]  # which many an error begins with
                    kinds.add(type(error))
                    failures.setdefault(why.removeprefix(f"{name}: "), []).append(name)
                elif finished:
                    finished(training.result())
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    if failures:
        count = f"{sum(map(len, failures.values()))} of {len(pending)} trainings failed; the others are kept:"
        kind = Diverged if kinds == {Diverged} else UWMLError
        raise kind("\n".join([count, *(f"{', '.join(names)}: {why}" for why, names in failures.items())]))
    return [Run.load(folder) for folder in folders]
