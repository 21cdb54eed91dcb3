"""Models trained on with another loss: what became of them, against where they began."""

from collections.abc import Mapping

import pandas as pd

from uwml_lib.evaluation.statistics import Comparison, compare_all
from uwml_lib.reports.tables import differences, mean_and_std
from uwml_lib.runs import Run, StudyRuns
from uwml_lib.support.errors import expect
from uwml_lib.support.progress import counted

START, OWN, RELEASED, FITTED = "start", "own loss", "released coefficients", "fitted coefficients"


def models(study: StudyRuns) -> dict[str, list[Run]]:
    """Return what models were trained on with -> the runs by seed, after "start", the models themselves.

    Runs of the group "trained_on", each of which names the run that it began with; {} without any.
    """
    starts = {run.folder.name: run for run in study.runs}
    groups: dict[str, list[Run]] = {name: [] for name in (START, OWN, RELEASED, FITTED)}
    for run in sorted(study["trained_on"], key=lambda run: run.seed):
        begun = run.config.start_from
        with_what = f"that it begins with {begun or 'random weights'}"
        expect(begun in starts, run.folder.name, with_what, "a run of the study")
        start = starts[begun]
        if run.config.loss == start.config.loss:
            groups[START].append(start)
            groups[OWN].append(run)
        else:
            groups[FITTED if "negative" in run.config.loss_options else RELEASED].append(run)
    found = {name: runs for name, runs in groups.items() if runs}
    where, too = f"{study.dataset}: trained on", "runs that went on with their own loss, too"
    expect(not found or START in found, where, f"{', '.join(found)} alone", too)
    return found


def against_start(groups: Mapping[str, list[Run]]) -> dict[str, Comparison]:
    """Return how each group compares with the start, a pair for each model, corrected for how many groups there are."""
    return compare_all({name: (runs, groups[START]) for name, runs in groups.items() if name != START})


def table(groups: Mapping[str, list[Run]]) -> pd.DataFrame:
    """One row a group: rsum of every model, mean ± std, and the difference to the start with its intervals."""
    found = against_start(groups)
    rows = {
        name: {f"seed {run.seed}": f"{run.rsum:.1f}" for run in runs}
        | {"rsum": mean_and_std(runs)}
        | ({f"− start, {over}": cell for over, cell in differences(found[name]).items()} if name in found else {})
        for name, runs in groups.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").fillna("").rename_axis("trained further with")


def in_words(groups: Mapping[str, list[Run]]) -> str:
    """Say by how much each way to train on changes the rsum, and which changes are statistically significant."""
    found, starts = against_start(groups), groups[START]
    said = "; ".join(f"{name} {comparison.over_seeds}" for name, comparison in found.items())
    sure = ", ".join(
        f"{name} ({'gain' if comparison.winner == 'a' else 'loss'})"
        for name, comparison in found.items() if comparison.winner
    )  # fmt: skip
    return (
        f"{counted(len(starts), 'model')} of {starts[0].config.loss} (rsum {mean_and_std(starts)}) trained further for "
        f"{counted(groups[OWN][0].config.epochs, 'epoch')}, change in rsum: {said}. Statistically significant: "
        f"{sure or 'none'}."
    )
