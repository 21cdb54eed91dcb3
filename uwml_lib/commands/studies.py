"""`uwml reproduce`, `compare`, `fidelity`, `models`, `videos` and `sweep`: many trainings, and what they show."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from uwml_lib.config import StudyOptions
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import parse_json, read_json


def _command(name: str, about: str, dataset: str = "scenes") -> Any:
    """Return the command of a study; dataset: where none is given."""
    usual = StudyOptions(dataset)

    def command(training: StudyOptions = usual) -> dict[str, Any]:
        from uwml_lib.studies import STUDIES, run_study

        runs, report = run_study(STUDIES[name], training)
        table = report.table.reset_index().to_dict("records")
        folders = [str(run.folder) for run in runs.all_runs]
        return {"dataset": runs.dataset, "split": runs.split, "table": table, "runs": folders}

    command.__doc__ = f"{about} Run it again to continue; no work is done twice."
    return command


reproduce = _command("reproduce", "Build or download the data, train both losses, execute the notebooks, and report.")
compare = _command("compare", "Train and tune every loss with the same budget, and execute notebooks 07 and 08.")
evidence = _command(
    "evidence",
    "Tune losses alike, and train them with enough seeds to decide which is better. Takes hours on real photographs.",
)
fidelity = _command("fidelity", "Train with and without habits of the released code, and execute notebook 09.")
models = _command("models", "Train both losses on every model, and execute notebook 10.")
videos = _command(
    "videos", "Train both losses on the models for items of unequal length, such as clips or the videos of "
    "`uwml msrvtt`, and execute notebook 11.", "clips",
)  # fmt: skip


def sweep(
    training: StudyOptions,
    space: str = "",
    name: str = "",
    sampler: Literal["grid", "random", "tpe"] | None = None,
    samples: int = 0,
    search_seed: int = 0,
    prune: bool = True,
    storage: str = "",
) -> dict[str, Any]:
    """Try settings on a grid, at random or by TPE, choose the best on dev, and report it on test.

    Run the same command on other machines that share the reports folder, and they share the work: nothing is trained
    twice, and another worker takes over from a killed one. Run it again to continue; what failed is tried again.

    Args:
        space: What to try, as a JSON file or as JSON: '{"loss.margin": [0.1, 0.2], "batch_size": [64, 128]}'. Names
            are settings of uwml train, or arguments of the loss after "loss."; with --samples there may be ranges,
            '{"learning_rate": {"low": 1e-4, "high": 1e-2, "log": true}}'. Several losses under "loss" get a
            sweep each. The default tries the polynomial loss's margin and negative coefficients.
        name: Name of the sweep, and of its folder under reports/sweeps/. The default is the name of the space's file,
            or "default".
        sampler: The default is random with --samples, else grid. tpe draws near the settings that were good so far.
        samples: How many settings to draw; 0 tries the whole grid.
        search_seed: Seed of the random draws; the settings are the same on every machine.
        prune: Stop a setting early if it is below the median of the complete ones. This is judged after half of the
            epochs, and at least one epoch after the warm-up.
        storage: Optuna URL of a database, such as postgresql://user@host/base, for machines that share the reports
            folder but not its file locks. The default is a journal in the sweep's folder.
    """
    from uwml_lib.datasets import EMBEDDED, prepare_data
    from uwml_lib.studies.engine import base_config, read_seeds
    from uwml_lib.studies.ranges import EPOCHS
    from uwml_lib.studies.sweep import tune_and_report
    from uwml_lib.studies.tuning import DEFAULT_SPACE, Sweep
    from uwml_lib.training import with_batch_that_fits

    for option in ("settings", "committed"):
        expect(not (found := getattr(training, option)), option, found, "none, for a sweep chooses settings itself")
    tried, base = read_space(space) if space else {**DEFAULT_SPACE}, base_config(training)
    if not space and training.epochs is None:
        base = replace(base, epochs=min(EPOCHS, base.epochs))
    given = {*training.others, *(["epochs"] if training.epochs is not None else [])}
    if twice := [name for name in tried if name in given]:
        raise UWMLError(f"{twice[0]}: is in the space and given besides, expected one of them")
    if base.dataset not in EMBEDDED and "batch_size" not in {*given, *tried}:
        prepare_data(base)
        base = with_batch_that_fits(base)
    losses = tried.pop("loss", [base.loss])
    if not isinstance(losses, list) or not losses or any(losses.count(loss) > 1 for loss in losses):
        raise UWMLError(f"space: loss: found {losses!r}, expected a list of losses that differ")
    name = name or ("default" if not space or space.lstrip().startswith("{") else Path(space).stem)
    seeds = read_seeds(training.seeds, [0] if training.profile == "smoke" else [0, 1])
    sampler = sampler or ("random" if samples else "grid")
    whole = Sweep(base, tried, seeds, sampler, samples, search_seed, prune, storage)
    sweeps = [replace(whole, base=replace(base, loss=loss), name=f"{name}-{loss}") for loss in losses]
    return tune_and_report(sweeps if len(sweeps) > 1 else [replace(sweeps[0], name=name)])


def read_space(text: str) -> dict[str, Any]:
    """Read a space: JSON itself, or the name of a JSON file; raises UWMLError."""
    if not text.lstrip().startswith("{"):
        return read_json(text)
    return parse_json("space", text)
