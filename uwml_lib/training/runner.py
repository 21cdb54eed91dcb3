"""Train one experiment from its configuration to its results, in its run folder."""

import contextlib
import os
from dataclasses import fields
from pathlib import Path

from accelerate import PartialState

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import fingerprint, prepare_data
from uwml_lib.runs.checkpoints import read_config
from uwml_lib.runs.scoring import evaluate_run
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import check_files, lock, make_folder, read_json, read_sealed_json, write_json
from uwml_lib.support.progress import Say, quiet, say
from uwml_lib.training.checks import check_config, check_model_fits
from uwml_lib.training.processes import find_processes
from uwml_lib.training.trainer import AfterEpoch, Trainer, computing


def train(
    config: ExperimentConfig, run_folder: Path | None = None, say: Say = say, after_epoch: AfterEpoch | None = None
) -> Path:
    """Train, evaluate the best epoch (by dev rsum) on the test split, and return the run folder.

    A finished run is left as it is; an interrupted one goes on after its last finished epoch, with the same metrics
    as if it had never stopped. Raises UWMLError, and keeps the last checkpoint, if the loss is no longer finite, and
    if `run_folder` holds a run of other settings. after_epoch: see `Trainer.fit`.
    """
    check_config(config)
    processes = find_processes(config)
    if processes.is_main_process:
        return _train(config, run_folder, processes, say, after_epoch)
    with quiet():  # the first speaks, and writes, for all
        return _train(config, run_folder, processes, _silent, after_epoch)


def _train(
    config: ExperimentConfig, run_folder: Path | None, processes: PartialState, say: Say, after_epoch: AfterEpoch | None
) -> Path:
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
        with computing(config):
            trainer = Trainer(config, folder, say)
            if processes.is_main_process and not (folder / "config.json").exists():
                begun = {"config": config.to_dict(), "data": data, "provenance": trainer.state.sessions[0]}
                write_json(folder / "config.json", begun)
            trainer.fit(after_epoch)
            if processes.is_main_process:
                results = evaluate_run(folder)
                rsum, epoch = results["metrics"]["rsum"], results["best_epoch"]
                trainer.say(f"{results['split']} rsum {rsum:.1f} (epoch {epoch})")
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
