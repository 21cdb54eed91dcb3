"""Over which ranges a loss is tuned: what of every loss, what of its own; and what lies beyond their edges."""

import math
from collections.abc import Mapping
from typing import Any

from uwml_lib.config import ExperimentConfig
from uwml_lib.models import MODELS
from uwml_lib.studies.trying import Space

EPOCHS = 4
"""Of a trial, at most."""
EDGE = 0.05
"""Share of a range, on its scale, that counts as its edge."""
Ends = Mapping[str, tuple[float, float]]
ENDS: Ends = {"warmup_epochs": (0, EPOCHS), "loss.base": (-1.0, 1.0)}
"""Name -> least and largest value that means anything: where a range ends there, its end is no edge."""
NO_ENDS = (-math.inf, math.inf)


def _log(low: float, high: float) -> dict[str, Any]:
    return {"low": low, "high": high, "log": True}


SHARED: Space = {
    "learning_rate": _log(3e-4, 6e-3), "batch_size": [32, 64, 128], "warmup_epochs": {"low": 0, "high": 2},
    "lambda_softmax": _log(3.0, 30.0),
}  # fmt: skip
"""What is tuned of every loss; the attention's lambda where the model has one."""
MARGIN: Space = {"loss.margin": _log(0.03, 0.5)}
OWN: Mapping[str, Space] = {
    **dict.fromkeys(("triplet", "triplet_all", "triplet_semihard"), MARGIN),
    "triplet_soft": {"loss.scale": _log(0.5, 60.0)},
    **dict.fromkeys(("polynomial", "polynomial_average", "polynomial_public_variant", "polynomial_relative"), MARGIN),
    "infonce": {"loss.temperature": _log(0.01, 0.3)},
    "sigmoid": {"loss.scale": _log(3.0, 60.0), "loss.bias": {"low": -20.0, "high": 0.0}},
    "multi_similarity": {"loss.base": {"low": 0.0, "high": 0.9}, "loss.beta": _log(8.0, 80.0)},
    "circle": {"loss.relaxation": _log(0.1, 0.8), "loss.gamma": _log(8.0, 200.0)},
}
"""Loss -> what is tuned of its own."""


def space_of(config: ExperimentConfig) -> Space:
    """Return what is tuned of a loss on a model."""
    unused = () if "lambda_softmax" in MODELS[config.model].settings else ("lambda_softmax",)
    return {**{name: choice for name, choice in SHARED.items() if name not in unused}, **OWN[config.loss]}


def ends_of(captions: int) -> Ends:
    """Return `ENDS` for so many training captions: batch sizes end where one twice as large could not be filled."""
    return {**ENDS, "batch_size": (1, captions // 2 + 1)}


def edges(space: Space, values: Mapping[str, Any], ends: Ends) -> list[str]:
    """Return the names whose value lies at the edge of what was tried, unless nothing lies beyond."""
    return [name for name in values if _side(space[name], values[name], ends.get(name, NO_ENDS))]


def widened(space: Space, values: Mapping[str, Any], ends: Ends) -> Space:
    """Return a space that goes on, by half its width, beyond the edges that were chosen."""
    wider = dict(space)
    for name in edges(space, values, ends):
        choice, side = space[name], _side(space[name], values[name], ends.get(name, NO_ENDS))
        if isinstance(choice, Mapping):
            end = "high" if side > 0 else "low"
            wider[name] = {**choice, end: _further(choice, choice[end], side / 2, ends.get(name, NO_ENDS))}
        else:
            wider[name] = [*choice, choice[-1] * 2] if side > 0 else [choice[0] // 2, *choice]
    return wider


def beyond(space: Space, name: str, value: Any, ends: Ends) -> Any:
    """Return a value beyond one at an edge: of a list the next, else by a quarter of the range's width."""
    choice, of = space[name], ends.get(name, NO_ENDS)
    side = _side(choice, value, of)
    if isinstance(choice, Mapping):
        return _further(choice, value, side / 4, of)
    return value * 2 if side > 0 else value // 2


def _further(choice: Mapping[str, Any], value: float, share: float, ends: tuple[float, float]) -> float:
    """Return a value moved by a share of a range's width, on its scale, and no further than the ends."""
    if choice.get("log"):
        moved = value * (choice["high"] / choice["low"]) ** share
    else:
        moved = value + share * (choice["high"] - choice["low"])
    if isinstance(value, int):
        moved = max(round(moved), value + 1) if share > 0 else min(round(moved), value - 1)
    else:
        moved = float(f"{moved:.3g}")
    least, most = ends
    return min(max(moved, least), most)


def _side(choice: Any, value: Any, ends: tuple[float, float]) -> int:
    """Say at which edge of a range, or a list of numbers, a value lies: 1 the upper, -1 the lower, 0 none."""
    log = isinstance(choice, Mapping) and choice.get("log", False)
    low, high = (choice["low"], choice["high"]) if isinstance(choice, Mapping) else (choice[0], choice[-1])
    scale = math.log if log else float
    place = (scale(value) - scale(low)) / (scale(high) - scale(low)) if low < high else 0.5
    least, most = ends
    return int(place >= 1 - EDGE and high < most) - int(place <= EDGE and low > least)
