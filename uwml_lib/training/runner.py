"""Train one experiment from its configuration to its results, after all that can be checked before."""

import contextlib
import math
import os
from dataclasses import replace
from pathlib import Path

import torch

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import check_data, fingerprint, load_split, prepare_data
from uwml_lib.datasets.sampler import training_sampler
from uwml_lib.models import MODELS, model_class
from uwml_lib.runs.checkpoints import read_config
from uwml_lib.runs.run import Run
from uwml_lib.runs.scoring import device_of, evaluate_run
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import lock, make_folder, read_json, write_json
from uwml_lib.support.progress import Say, counted, say
from uwml_lib.training.processes import find_processes, launched
from uwml_lib.training.trainer import AfterEpoch, Trainer, build_loss, computing


def train(
    config: ExperimentConfig, run_folder: Path | None = None, say: Say = say, after_epoch: AfterEpoch | None = None
) -> Path:
    """Train, evaluate the best epoch (by dev rsum) on the test split, and return the run folder.

    A finished run is left as it is; an interrupted one goes on after the last step whose state was kept, with the
    same metrics as if it had never stopped. Raises UWMLError, and keeps the last checkpoint, if the loss is no longer
    finite, and if `run_folder` holds a run of other settings. after_epoch: see `Trainer.fit`.
    """
    check_config(config)
    processes = find_processes(config)
    say = processes.on_main_process(say)  # the first speaks, and writes, for all
    prepare_data(config, say)
    check_model_fits(config)
    data = fingerprint(config.data_folder, config.captions)
    folder = make_folder(run_folder or paths.RUNS / config.dataset / config.run_name(data))
    with lock(folder, say) if processes.is_main_process else contextlib.nullcontext():
        with processes.main_process_first():
            _check_same_run(folder, config, data)
        if (folder / "results.json").exists():
            Run.load(folder)
            say(f"{folder.name}: finished before")
            return folder
        with computing(config):
            trainer = Trainer(config, folder, say, data)
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


def check_config(config: ExperimentConfig, processes: int | None = None) -> None:
    """Raise UWMLError for anything that can be known to fail before the data is read.

    processes: that are to train together; None means those that torchrun has started.
    """
    processes = launched() if processes is None else processes
    build_loss(config)
    model_class(config)
    expect(processes >= 1, "processes", processes, "at least 1")
    shared = f"a multiple of the {processes} processes that share it"
    expect(config.batch_size % processes == 0, "batch_size", config.batch_size, shared)
    if processes > 1 and (device := device_of(config)) != "cpu" and processes > (cards := torch.cuda.device_count()):
        raise UWMLError(
            f"processes: found {processes}, expected at most one for each of the {cards} cards that several can use "
            f"here (device {device}), or --device cpu"
        )
    if config.start_from and not ((start := paths.RUNS / config.dataset / config.start_from) / "config.json").exists():
        raise UWMLError(f"start_from: found no run in {start}, expected a finished one")
    if config.mixed_precision == "fp16" and device_of(config) == "cpu":
        raise UWMLError("mixed_precision: found 'fp16' on the CPU, expected 'no' or 'bf16'")
    if config.evaluation_precision == "float64" and device_of(config) == "mps":
        raise UWMLError("evaluation_precision: found 'float64', which mps does not have, expected 'float32'")


def check_model_fits(config: ExperimentConfig) -> None:
    """Raise UWMLError for data that cannot be used, or not with this model, or have no batch."""
    train_set, *others = check_data(config, scan=False)
    most = f"at most the {len(train_set)} training captions"
    expect(config.batch_size <= len(train_set), "batch_size", config.batch_size, most)
    training_sampler(config, train_set)  # raises if too few of them go into a batch
    for split in (train_set, *others):
        fitting = ", ".join(name for name, model in MODELS.items() if model.varying)
        expected = f"one for images of unequal numbers of regions, which {split.folder} has: {fitting}"
        expect(not split.varying or model_class(config).varying, "model", repr(config.model), expected)


def with_batch_that_fits(config: ExperimentConfig, say: Say = say) -> ExperimentConfig:
    """Return a configuration whose batches its data, which must be there, can fill.

    It is the same one if they can. Else the batch is the largest power of two that an epoch has four of, and said.
    """
    if (n_captions := len(load_split(config, "train"))) >= config.batch_size:
        return config
    fits = 2 ** max(1, int(math.log2(n_captions / 4)))
    say(
        f"batch_size: {fits} instead of {config.batch_size}, for {config.dataset} has no more than "
        f"{counted(n_captions, 'training caption')}; --batch-size sets another"
    )
    return replace(config, batch_size=fits)


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
    there = read_config(folder).identity
    for name, wanted in config.identity.items():
        if there[name] != wanted:
            found = f"a run with {name} {there[name]!r}, not {wanted!r}"
            raise UWMLError(f"{path}: this folder holds {found}; choose another run folder")
