"""`uwml reproduce`, `compare`, `fidelity`, `models`, `videos` and `sweep`: many trainings, and what they show."""

from pathlib import Path
from typing import Any, Literal

from uwml_lib.support.errors import UWMLError

Profile = Literal["full", "smoke"]


def _command(name: Any, about: str, preferred: str = "scenes", layout: str = "", smoke_seeds: str = "0") -> Any:
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
    samples: int = 0,
    search_seed: int = 0,
    wait: bool = False,
) -> dict[str, Any]:
    """Try settings on a grid or at random, choose by dev, report on test. Called again, or on other machines that share
    the reports folder, it takes part: no run is trained twice, and what a killed worker left goes on.

    Args:
        dataset: scenes, or the name of a folder in the SCAN layout.
        data_root: Folder that holds the data set's folder; empty means data/.
        seeds: Seeds of every setting, separated by blanks or commas; by default 0 1 (smoke: 0).
        epochs: Epochs of every training; by default those of the data set's preset, and of the default space 4 at most.
        profile: smoke: the same, tiny, to see that everything works.
        space: What to try, a JSON file or JSON itself: '{"loss.margin": [0.1, 0.2], "batch_size": [64, 128]}'. Names
            are settings of uwml train, or arguments of the loss after "loss."; with --samples there may be ranges,
            '{"learning_rate": {"low": 1e-4, "high": 1e-2, "log": true}}'. By default the polynomial loss's margin and
            negative coefficients.
        name: Name of the sweep, and of its folder under reports/sweeps/; by default that of the space's file, or
            default.
        samples: Draw so many settings at random; 0 tries the whole grid.
        search_seed: Seed of that drawing; the same on every machine.
        wait: Stay until all is done, to take over what others leave; else end once there is nothing to claim, so that
            no machine is held for nothing.
    """
    from uwml_lib.studies.search_space import read_space
    from uwml_lib.studies.sweep import sweep as take_part

    of_a_file = space and not space.lstrip().startswith("{")
    text = take_part(
        dataset, data_root, read_seeds(seeds), epochs, profile, read_space(space) if space else None,
        name or (Path(space).stem if of_a_file else "default"), samples, search_seed, wait,
    )  # fmt: skip
    return {"markdown": text}


def read_seeds(words: str) -> list[int] | None:
    """Read seeds separated by blanks or commas; None if there are no words. Raises UWMLError."""
    try:
        seeds = [int(seed) for seed in words.replace(",", " ").split()]
        if words and not seeds:
            raise ValueError("no number")
        return seeds or None
    except ValueError as error:
        raise UWMLError(f"seeds: found {words!r}, expected whole numbers such as '0 1 2'") from error
