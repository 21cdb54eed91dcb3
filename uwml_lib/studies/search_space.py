"""What a sweep tries: for every name of a setting, a list of values or a range to draw from."""

import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import product
from typing import Any, Literal

import optuna

from uwml_lib.config import ExperimentConfig, nearest
from uwml_lib.losses import LOSSES
from uwml_lib.losses.horner import is_real
from uwml_lib.studies.compare import NO_DEAD_ZONE
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json

Sampler = Literal["grid", "random", "tpe"]
Space = Mapping[str, Any]
"""Name -> a list of values, or a range to draw from; see `check_space`."""

DEFAULT_SPACE: Space = {
    "loss.margin": [0.1, 0.2, 0.3],
    "loss.negative": [[0.03, -0.4, 0.9], list(NO_DEAD_ZONE["negative"])],
}
"""The polynomial loss's margin, and the coefficients for negatives: as released, and without a dead zone."""

LARGEST = 1000  # settings; more are a slip
WHOLE = {item.name for item in fields(ExperimentConfig) if item.type is int}

_OTHER_IMAGES = "decides which images are there to choose by, so its values cannot be compared"
NOT_SWEPT: dict[str, str] = {
    "seed": "is no setting to choose; give seeds by --seeds",
    "loss": "is no setting to choose; each loss has a sweep of its own",
    "loss_options": "is not given whole; name the loss's arguments, such as loss.margin",
    **dict.fromkeys(("dataset", "max_images", "dev_captions", "selection_images"), _OTHER_IMAGES),
    **{item.name: "cannot change a result" for item in fields(ExperimentConfig) if "cosmetic" in item.metadata},
}
"""Field of ExperimentConfig -> why a space may not name it."""


def read_space(text: str) -> dict[str, Any]:
    """Read a space: JSON itself, or the name of a JSON file; raises UWMLError."""
    if not text.lstrip().startswith("{"):
        return read_json(text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UWMLError(f"space: not readable as JSON ({error})") from error


def settings_of(space: Space, sampler: Sampler, samples: int = 0, seed: int = 0) -> list[dict[str, Any]]:
    """Return the settings to try, as parameters of Optuna: a grid's, or drawn at random; TPE's are not known yet.

    Of a random setting the seed and its place decide. Raises UWMLError; see `check_space`.
    """
    drawn = sampler != "grid"
    check_space(space, drawn)
    if drawn and not 0 < samples <= LARGEST:
        raise UWMLError(f"samples: found {samples:,}, expected how many settings to draw, 1 to {LARGEST:,}")
    if not drawn and (size := math.prod(map(len, space.values()))) > LARGEST:
        raise UWMLError(f"space: found a grid of {size:,} settings, expected at most {LARGEST:,}")
    if sampler == "tpe":
        return [{}] * samples
    if sampler == "grid":
        grid = product(*([_stored(value) for value in choice] for choice in space.values()))
        return [dict(zip(space, values, strict=True)) for values in grid]
    study = optuna.create_study()
    for number in range(1, samples + 1):
        study.sampler = optuna.samplers.RandomSampler((seed * LARGEST + number) % 2**32)
        suggest(study.ask(), space)
    return [trial.params for trial in study.trials]


def examples(space: Space) -> list[dict[str, Any]]:
    """Return settings, name -> value, in which every value of a list, and both ends of every range, occur."""
    ends = {name: [of["low"], of["high"]] if isinstance(of, Mapping) else of for name, of in space.items()}
    return [{name: of[place % len(of)] for name, of in ends.items()} for place in range(max(map(len, ends.values())))]


def check_space(space: Space, drawn: bool) -> None:
    """Raise UWMLError unless a space names settings, each with a list of values that differ, or a range to draw from.

    Names are fields of ExperimentConfig, or arguments of the loss after "loss.". A range is {"low": ..., "high": ...},
    with "log": true to draw the logarithm evenly, and is only for a search that draws.
    """
    if not space:
        raise UWMLError("space: found no settings, expected names and values")
    arguments = {name for loss in LOSSES.values() for name in inspect.signature(loss).parameters}
    known = [item.name for item in fields(ExperimentConfig) if item.name not in NOT_SWEPT]
    known += [f"loss.{name}" for name in sorted(arguments - {"check_finite"})]  # which changes no result
    for name, choice in space.items():
        if name in NOT_SWEPT:
            raise UWMLError(f"space: {name} {NOT_SWEPT[name]}")
        if name not in known:
            raise UWMLError(f"space: unknown name {name!r}; {nearest(name, known)}")
        if isinstance(choice, Mapping):
            _check_range(name, choice, drawn)
        elif not isinstance(choice, list) or not choice:
            raise UWMLError(f"space: {name}: found {choice!r}, expected a list of values" + " or a range" * drawn)
        elif twice := [value for place, value in enumerate(choice) if value in choice[:place]]:
            raise UWMLError(f"space: {name}: found {twice[0]!r} twice, expected values that differ")


def _check_range(name: str, found: Mapping[str, Any], drawn: bool) -> None:
    if not drawn:
        raise UWMLError(f"space: {name}: found a range, which is for --samples, expected a list of values")
    low, high, log = found.get("low", ""), found.get("high", ""), found.get("log", False)
    right = all(type(end) is int if name in WHOLE else is_real(end) for end in (low, high))
    right = right and set(found) <= {"low", "high", "log"} and isinstance(log, bool)
    if not right or low >= high or (log and low <= 0):
        kind = "whole numbers" if name in WHOLE else "numbers"
        raise UWMLError(
            f'space: {name}: found {dict(found)!r}, expected {{"low": ..., "high": ...}}, {kind} with low below high, '
            'and for "log": true both above 0'
        )


def _stored(value: Any) -> Any:
    """A value as Optuna stores it, which knows no lists: as JSON text."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def suggest(trial: Any, space: Space) -> dict[str, Any]:
    """Return the setting of an Optuna trial, one that runs, a frozen or a fixed one: name -> value."""
    values: dict[str, Any] = {}
    for name, choice in space.items():
        if not isinstance(choice, Mapping):
            by_stored = {_stored(value): value for value in choice}
            values[name] = by_stored[trial.suggest_categorical(name, list(by_stored))]
        elif name in WHOLE:
            values[name] = trial.suggest_int(name, **choice)
        else:  # rounded, for the last bits of a power depend on the machine
            values[name] = float(f"{trial.suggest_float(name, **choice):.6g}")
    return values


def configured(base: ExperimentConfig, values: Mapping[str, Any], seed: int) -> ExperimentConfig:
    """Return the configuration of a setting with a seed; raises UWMLError for a value of the wrong type."""
    others = {name: value for name, value in values.items() if not name.startswith("loss.")}
    options = {name.removeprefix("loss."): value for name, value in values.items() if name not in others}
    return replace(base, **others, loss_options={**base.loss_options, **options}, seed=seed)
