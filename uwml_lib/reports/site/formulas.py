"""What the explorer and the playground share: losses that are computed in the page, and the making of a page."""

import inspect
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from uwml_lib.losses import LOSSES, ScoreMatrixLoss

TEMPLATES = Path(__file__).parent / "templates"
FORMULAS = (
    "circle", "infonce", "multi_similarity", "polynomial", "polynomial_relative", "sigmoid", "triplet",
    "triplet_semihard", "triplet_soft",
)  # fmt: skip
"""Losses written out in `templates/shared/formulas.js`; all others are these with other settings."""


def formula_of(loss: ScoreMatrixLoss) -> str | None:
    """Return the formula from which a loss has its weights, if it is one of the page's."""
    return next((name for name in FORMULAS if type(loss).direction_weights is LOSSES[name].direction_weights), None)


def losses_for_pages() -> dict[str, dict[str, Any]]:
    """Return what the pages must know of every loss that has a formula there, by its name in `LOSSES`.

    formula: its name in the page. settings: the formula's parameters, at this loss's defaults. dense: formula and
    choice of negatives of the form that a warm-up trains.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, Loss in LOSSES.items():
        loss = Loss(reduction="sum")  # type: ignore[call-arg]  # a loss by name has defaults for all else
        if formula := formula_of(loss):
            parameters = inspect.signature(LOSSES[formula]).parameters.keys() - {"reduction", "check_finite"}
            settings = {parameter: getattr(loss, parameter) for parameter in sorted(parameters)}
            dense = loss.dense()
            found[name] = {"formula": formula, "settings": settings, "dense": [formula_of(dense), dense.negatives]}
    return found


def render(page: str, data: dict[str, Any], **shown: Any) -> str:
    """Return the page of a template, everything it needs inside it; data: what its script reads."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    loader = FileSystemLoader([TEMPLATES / page, TEMPLATES / "shared"])
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("page.html.j2").render(data=text, **shown)
