"""The settings of each loss, as `settings.json` has them: loss -> settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uwml_lib.config import ExperimentConfig, nearest
from uwml_lib.losses import LOSSES
from uwml_lib.runs.study_runs import OF_A_LOSS
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import read_json
from uwml_lib.training.trainer import build_loss

Tuned = dict[str, dict[str, Any]]
"""Loss, or what a variant of one is called -> settings of `uwml train`; a variant names its loss among them."""


def read_settings(path: Path) -> Tuned:
    """Read a file of settings, loss by loss; raises UWMLError that names the file, the loss and what is wrong."""
    found = read_json(path)
    for name, settings in found.items():
        where = f"{path}: {name}"
        expect(isinstance(settings, Mapping), where, f"{settings!r}", "an object of settings")
        loss = settings.get("loss", name)
        if loss not in LOSSES:
            raise UWMLError(f"{where}: unknown loss {loss!r}; {nearest(loss, [*LOSSES])}")
        try:
            build_loss(ExperimentConfig.from_dict({**settings, "loss": loss}))
        except UWMLError as error:
            raise UWMLError(f"{where}: {error}") from error
        if others := [key for key in settings if key not in ("loss", *OF_A_LOSS)]:
            given = "is given by an option of its own, the same for all losses"
            raise UWMLError(f"{where}: {others[0]} {given}; a loss has {', '.join(OF_A_LOSS)}")
    return found


def of_loss(tuned: Mapping[str, Mapping[str, Any]], name: str, **options: Any) -> dict[str, Any]:
    """Return the settings of a loss, or a variant, with its name; options: further ones of the loss."""
    settings = tuned.get(name, {})
    chosen = settings.get("loss_options", {})
    return {"loss": name, **settings, "loss_options": {**chosen, **options}}
