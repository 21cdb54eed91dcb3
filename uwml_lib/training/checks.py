"""What can be known to fail before anything long starts."""

import inspect

import torch

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import check_data
from uwml_lib.losses import LOSSES, ScoreMatrixLoss
from uwml_lib.models import MODELS, model_class
from uwml_lib.runs.scoring import device_of
from uwml_lib.support.errors import UWMLError
from uwml_lib.training.processes import launched


def build_loss(config: ExperimentConfig) -> ScoreMatrixLoss:
    """Build the loss a configuration names; raises UWMLError for an unknown name or argument."""
    if config.loss not in LOSSES:
        raise UWMLError(f"loss: found {config.loss!r}, expected one of {', '.join(LOSSES)}")
    arguments = inspect.signature(LOSSES[config.loss]).parameters
    if unknown := [name for name in config.loss_options if name not in arguments]:
        raise UWMLError(f"loss_options of {config.loss}: found {unknown[0]!r}, expected some of {', '.join(arguments)}")
    try:
        # The trainer looks for non-finite values itself, without making the device wait at every step.
        return LOSSES[config.loss](**{"check_finite": False, **config.loss_options})
    except (TypeError, ValueError, OverflowError) as error:
        raise UWMLError(f"loss_options of {config.loss}: {error}") from error


def check_config(config: ExperimentConfig, processes: int | None = None) -> None:
    """Raise UWMLError for anything that can be known to fail before the data is read.

    processes: that are to train together; None means those that torchrun has started.
    """
    processes = launched() if processes is None else processes
    build_loss(config)
    model_class(config)
    if processes < 1:
        raise UWMLError(f"processes: found {processes}, expected at least 1")
    if config.batch_size % processes:
        raise UWMLError(
            f"batch_size: found {config.batch_size}, expected a multiple of the {processes} processes that share it"
        )
    if processes > 1 and (device := device_of(config)) != "cpu" and processes > (cards := torch.cuda.device_count()):
        raise UWMLError(
            f"processes: found {processes}, expected at most one for each of the {cards} cards that several can use "
            f"here (device {device}), or --device cpu"
        )
    if config.mixed_precision == "fp16" and device_of(config) == "cpu":
        raise UWMLError("mixed_precision: found 'fp16' on the CPU, expected 'no' or 'bf16'")
    if config.evaluation_precision == "float64" and device_of(config) == "mps":
        raise UWMLError("evaluation_precision: found 'float64', which mps does not have, expected 'float32'")


def check_model_fits(config: ExperimentConfig) -> None:
    """Raise UWMLError for data that cannot be used, or not with this model, or have no batch."""
    train_set, *others = check_data(config, scan=False)
    if len(train_set) < config.batch_size:
        raise UWMLError(
            f"batch_size: found {config.batch_size}, expected at most the {len(train_set)} training captions"
        )
    for split in (train_set, *others):
        if split.varying and not model_class(config).varying:
            raise UWMLError(
                f"model: found {config.model!r}, expected one for images of unequal numbers of regions, which "
                f"{split.folder} has: {', '.join(name for name, model in MODELS.items() if model.varying)}"
            )
