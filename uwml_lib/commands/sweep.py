"""`uwml sweep`."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from uwml_lib.commands.studies import Profile, read_seeds
from uwml_lib.support.errors import UWMLError


def sweep(
    dataset: str = "scenes",
    data_root: str = "",
    seeds: str = "",
    epochs: int | None = None,
    profile: Profile = "full",
    space: str = "",
    name: str = "",
    sampler: Literal["grid", "random", "tpe"] | None = None,
    samples: int = 0,
    search_seed: int = 0,
    prune: bool = True,
    storage: str = "",
) -> dict[str, Any]:
    """Try settings on a grid, at random or by TPE, choose by dev, report on test.

    The same command on other machines that share the reports folder takes part: nothing is trained twice, and what a
    killed worker leaves is taken over. Called again it goes on, and tries again what failed.

    Args:
        dataset: scenes, or the name of a folder in the SCAN layout.
        data_root: Folder that holds the data set's folder; empty means data/.
        seeds: Seeds of every setting, separated by blanks or commas; by default 0 1 (smoke: 0).
        epochs: Epochs of every training; by default those of the data set's preset, and of the default space 4 at most.
        profile: smoke: the same, tiny, to see that everything works.
        space: What to try, a JSON file or JSON itself: '{"loss.margin": [0.1, 0.2], "batch_size": [64, 128]}'. Names
            are settings of uwml train, or arguments of the loss after "loss."; with --samples there may be ranges,
            '{"learning_rate": {"low": 1e-4, "high": 1e-2, "log": true}}'. Of several losses under "loss" each has a
            sweep of its own. By default the polynomial loss's margin and negative coefficients.
        name: Name of the sweep, and of its folder under reports/sweeps/; by default that of the space's file, or
            default.
        sampler: By default random with --samples, else grid; tpe draws near what was good so far.
        samples: Settings to draw; 0 tries the whole grid.
        search_seed: Seed of drawing at random; the settings are the same on every machine.
        prune: Stop a setting that after the warm-up and half of the epochs is below the median of the complete ones.
        storage: Optuna URL of a database, such as postgresql://user@host/base, for machines that share the reports
            folder but not its file locks; by default a journal in the sweep's folder.
    """
    from uwml_lib.studies.compare import TUNING_EPOCHS
    from uwml_lib.studies.engine import base_config, check_seeds
    from uwml_lib.studies.search_space import DEFAULT_SPACE, read_space
    from uwml_lib.studies.sweep import tune_and_report
    from uwml_lib.studies.tuning import Sweep

    tried = read_space(space) if space else dict(DEFAULT_SPACE)
    base = base_config(dataset, data_root, epochs, profile)
    if not space and epochs is None:
        base = replace(base, epochs=min(TUNING_EPOCHS, base.epochs))
    if epochs is not None and "epochs" in tried:
        raise UWMLError("epochs: is in the space and given besides, expected one of them")
    losses = tried.pop("loss", [base.loss])
    if not isinstance(losses, list) or not losses or any(losses.count(loss) > 1 for loss in losses):
        raise UWMLError(f"space: loss: found {losses!r}, expected a list of losses that differ")
    if not name:
        name = Path(space).stem if space and not space.lstrip().startswith("{") else "default"
    whole = Sweep(
        base, tried, tuple(check_seeds(read_seeds(seeds) or ([0] if profile == "smoke" else [0, 1]))),
        sampler or ("random" if samples else "grid"), samples, search_seed, prune, storage, name,
    )  # fmt: skip
    by_loss = [replace(whole, base=replace(base, loss=loss), name=f"{name}-{loss}") for loss in losses]
    return tune_and_report(by_loss if len(losses) > 1 else [replace(whole, base=replace(base, loss=losses[0]))])
