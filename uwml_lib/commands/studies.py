"""`uwml reproduce`, `compare`, `fidelity`, `models`, `videos` and `sweep`: many trainings, and what they show."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json

Profile = Literal["full", "smoke"]


def _command(name: str, about: str, preferred: str = "scenes", layout: str = "", smoke_seeds: str = "0") -> Any:
    """Return the command of a study; preferred: its data set by default, layout: what other data sets must have."""

    def command(
        dataset: str = preferred,
        data_root: str = "",
        seeds: str = "",
        epochs: int | None = None,
        profile: Profile = "full",
    ) -> dict[str, Any]:
        from uwml_lib.studies import STUDIES, run_study

        runs, report = run_study(STUDIES[name], dataset, data_root, read_seeds(seeds), epochs, profile)
        table = report.table.reset_index().to_dict("records")
        folders = [str(run.folder) for run in runs.all_runs]
        return {"dataset": runs.dataset, "split": runs.split, "table": table, "runs": folders}

    command.__doc__ = f"""{about} Called again it goes on, and does no work twice.

    Args:
        dataset: {preferred}, or the name of a folder in the SCAN layout{layout}.
        data_root: Folder that holds the data set's folder; empty means data/.
        seeds: Seeds, separated by blanks or commas; by default 0 1 2 (smoke: {smoke_seeds}).
        epochs: Epochs of every training; by default those of the data set's preset.
        profile: smoke: the same, tiny, to see that everything works.
    """
    return command


reproduce = _command("reproduce", "Everything: data, trainings, notebooks, report.", smoke_seeds="0 1")
compare = _command("compare", "Train and tune every loss with the same budget, and execute notebooks 05 and 06.")
fidelity = _command("fidelity", "Train with habits of the released code and without, and execute notebook 07.")
models = _command("models", "Train both losses on every model, and execute notebook 08.")
videos = _command(
    "videos", "Train both losses on the models for items of unequal length, and execute notebook 09.",
    preferred="clips", layout=" with frames, as `uwml msrvtt` makes it",
)  # fmt: skip


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
    from uwml_lib.studies.sweep import tune_and_report
    from uwml_lib.studies.tuning import DEFAULT_SPACE, Sweep

    tried, base = read_space(space) if space else {**DEFAULT_SPACE}, base_config(dataset, data_root, epochs, profile)
    if not space and epochs is None:
        base = replace(base, epochs=min(TUNING_EPOCHS, base.epochs))
    if epochs is not None and "epochs" in tried:
        raise UWMLError("epochs: is in the space and given besides, expected one of them")
    losses = tried.pop("loss", [base.loss])
    if not isinstance(losses, list) or not losses or any(losses.count(loss) > 1 for loss in losses):
        raise UWMLError(f"space: loss: found {losses!r}, expected a list of losses that differ")
    name = name or ("default" if not space or space.lstrip().startswith("{") else Path(space).stem)
    whole = Sweep(
        base, tried, tuple(check_seeds(read_seeds(seeds) or ([0] if profile == "smoke" else [0, 1]))),
        sampler or ("random" if samples else "grid"), samples, search_seed, prune, storage,
    )  # fmt: skip
    names = [f"{name}-{loss}" for loss in losses] if len(losses) > 1 else [name]
    each = zip(losses, names, strict=True)
    return tune_and_report([replace(whole, base=replace(base, loss=loss), name=called) for loss, called in each])


def read_space(text: str) -> dict[str, Any]:
    """Read a space: JSON itself, or the name of a JSON file; raises UWMLError."""
    if not text.lstrip().startswith("{"):
        return read_json(text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UWMLError(f"space: not readable as JSON ({error})") from error


def read_seeds(words: str) -> list[int] | None:
    """Read seeds separated by blanks or commas; None if there are no words. Raises UWMLError."""
    try:
        seeds = [int(seed) for seed in words.replace(",", " ").split()]
    except ValueError:
        seeds = []
    if words and not seeds:
        raise UWMLError(f"seeds: found {words!r}, expected whole numbers such as '0 1 2'")
    return seeds or None
