"""Train one experiment from its configuration to its results, in its run folder."""

import contextlib
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import (
    fingerprint,
    prepare_data,
)
from uwml_lib.runs.checkpoints import read_config
from uwml_lib.runs.scoring import evaluate_run
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import (
    check_files,
    lock,
    make_folder,
    read_json,
    read_sealed_json,
    write_json,
)
from uwml_lib.support.progress import Say, say
from uwml_lib.training.checks import check_config, check_model_fits
from uwml_lib.training.trainer import AfterEpoch, Trainer, _processes


def train(
    config: ExperimentConfig, run_folder: Path | None = None, say: Say = say, after_epoch: AfterEpoch | None = None
) -> Path:
    """Train, evaluate the best epoch (by dev rsum) on the test split, and return the run folder.

    A finished run is left as it is; an interrupted one goes on after its last finished epoch, with the same metrics
    as if it had never stopped. Raises UWMLError, and keeps the last checkpoint, if the loss is no longer finite, and
    if `run_folder` holds a run of other settings. after_epoch: see `Trainer.fit`.
    """
    check_config(config)
    processes = _processes(config)
    if not processes.is_main_process:  # the first speaks and writes for all
        say, os.environ["UWML_HEADLESS"] = _silent, "1"
    prepare_data(config, say)
    check_model_fits(config)
    data = fingerprint(config.data_folder, config.captions)
    folder = make_folder(run_folder or paths.RUNS / config.dataset / config.run_name(data))
    with lock(folder, say) if processes.is_main_process else contextlib.nullcontext():
        with processes.main_process_first():
            _check_same_run(folder, config, data)
        if (folder / "results.json").exists():
            check_files(folder, read_sealed_json(folder / "results.json")["files"])
            say(f"{folder.name}: finished before")
            return folder
        trainer = Trainer(config, folder, say)
        if processes.is_main_process:
            _write_config(folder, config, data, trainer.sessions[0])
        trainer.fit(after_epoch)
        if processes.is_main_process:
            results = evaluate_run(folder)
            say(
                f"{trainer.name}: {results['split']} rsum {results['metrics']['rsum']:.1f} "
                f"(epoch {results['best_epoch']})"
            )
        processes.wait_for_everyone()
    return folder


def _silent(line: str) -> None:
    """Say nothing: another process does."""


def _check_same_run(folder: Path, config: ExperimentConfig, data: str) -> None:
    """Raise UWMLError if a folder holds a run whose settings or data could give another result."""
    path = folder / "config.json"
    if not path.exists():
        foreign = sorted(set(os.listdir(folder)) - {"vocabulary.json", ".vocabulary.json.part", ".config.json.part"})
        if foreign:
            raise UWMLError(f"{folder}: found {foreign[0]} and no config.json, expected a new folder or that of a run")
        return
    if read_json(path).get("data") != data:
        raise UWMLError(f"{path}: this folder holds a run on other data; choose another run folder")
    there = read_config(folder)
    for item in fields(config):
        found, wanted = getattr(there, item.name), getattr(config, item.name)
        if "cosmetic" not in item.metadata and found != wanted:
            raise UWMLError(
                f"{path}: this folder holds a run with {item.name} {found!r}, not {wanted!r}; choose another run folder"
            )


def _write_config(folder: Path, config: ExperimentConfig, data: str, session: dict[str, Any]) -> None:
    path = folder / "config.json"
    if not path.exists():
        write_json(path, {"config": config.to_dict(), "data": data, "provenance": session})
