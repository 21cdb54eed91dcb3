"""`uwml reproduce`, `compare`, `fidelity`, `models` and `videos`: many trainings, and what they show."""

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


def read_seeds(words: str) -> list[int] | None:
    """Read seeds separated by blanks or commas; None if there are no words. Raises UWMLError."""
    try:
        seeds = [int(seed) for seed in words.replace(",", " ").split()]
        if words and not seeds:
            raise ValueError("no number")
        return seeds or None
    except ValueError as error:
        raise UWMLError(f"seeds: found {words!r}, expected whole numbers such as '0 1 2'") from error
