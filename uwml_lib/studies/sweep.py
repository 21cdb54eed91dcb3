"""What `make sweep` finds: a table of its settings, the chosen one's numbers on test, Optuna's figures."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from optuna.visualization import matplotlib as plots

from uwml_lib.evaluation.statistics import paired_interval
from uwml_lib.reports.figures import STYLE
from uwml_lib.reports.tables import plain, results_table, run_table
from uwml_lib.runs.study_runs import StudyRuns
from uwml_lib.studies.engine import build_pages
from uwml_lib.studies.tuning import COMPLETE_FIRST, Outcome, Sweep, check_sweep, quiet_optuna, tune
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import atomic_path, lock, sha256_of, write_sealed_json, write_text
from uwml_lib.support.progress import Say, say

PRUNED = (
    "A setting was pruned if its first seed, after the warm-up and half of the epochs, fell below the median of the "
    "complete ones; whether it would have caught up is not known."
)


def tune_and_report(sweeps: Sequence[Sweep], say: Say = say) -> dict[str, Any]:
    """Tune one loss after the other and report each; return the text, and loss -> the values that were chosen.

    Raises UWMLError before anything is trained for what cannot be, and in the end, when all else is done, if settings
    failed.
    """
    for sweep in sweeps[1:]:  # the first is checked by `tune`
        check_sweep(sweep, say)
    texts, chosen, failures = [], {}, []
    for sweep in sweeps:
        outcomes = tune(sweep, say)
        failures += [f"{sweep.name}, setting {one.number}: {one.error}" for one in outcomes if one.error]
        if outcomes[0].runs:
            with lock(paths.SWEEPS, say):  # machines that end together would write the same files
                texts.append(write_results(sweep, outcomes))
                chosen[sweep.base.loss] = outcomes[0].values
                say(f"\n{texts[-1]}\n\n{sweep.folder / 'sweep.md'}\nReport: {build_pages(say)}")
    if failures:
        raise UWMLError("\n".join([f"{len(failures)} settings failed; the same command tries them again:", *failures]))
    return {"markdown": "\n\n".join(texts), "chosen": chosen}


def write_results(sweep: Sweep, outcomes: Sequence[Outcome]) -> str:
    """Write sweep.md, sweep.json and the figures into the sweep's folder; return the text without the list of runs.

    outcomes: of `tune`, at least one of them complete.
    """
    complete, dataset, dev = [one for one in outcomes if one.runs], sweep.base.dataset, sweep.base.chosen_by
    chosen, first = complete[0], outcomes[0].values
    differ = [name for name in first if any(one.values[name] != first[name] for one in outcomes)]
    varied, split = differ or list(first), chosen.runs[0].results["split"]
    settings = pd.DataFrame(
        {"setting": one.number, **{name: json.dumps(one.values[name]) for name in varied}}
        | {f"{dev} rsum": one.dev.mean_and_std if one.dev else "", "seeds": len(one.runs) or "", "state": one.state}
        for one in outcomes
    )
    every = [(one.number, run) for one in complete for run in one.runs]
    runs = run_table(tuple(run for _, run in every), setting=[number for number, _ in every]).reset_index()
    if split != dev:  # of what was not chosen, the dev numbers alone
        runs = runs.drop(columns=f"{split} rsum")
    numbers = results_table(StudyRuns(dataset, {"runs": chosen.runs})).reset_index()
    tables = {"settings": settings, "chosen": numbers, "runs": runs}
    shown = {name: table.to_markdown(index=False, disable_numparse=True) for name, table in tables.items()}
    *sentences, last = _sentences(sweep, outcomes, varied, split)
    title = f"## {dataset}, sweep {sweep.name}: {len(outcomes)} settings"
    text = "\n\n".join([title, shown["settings"], *sentences, shown["chosen"], last])
    lists = [f"![{name}]({name}.png)" for name in _draw(sweep, varied, len(complete))] + ["### Runs", shown["runs"]]
    if failed := [f"- setting {one.number}: {one.error}" for one in outcomes if one.error]:
        lists += ["### Failed", "\n".join(failed)]
    write_text(sweep.folder / "sweep.md", "\n\n".join([text, *lists]) + "\n")
    write_sealed_json(sweep.folder / "sweep.json", {
        "dataset": dataset, "name": sweep.name, "split": split, "chosen_by": dev, "varied": varied,
        "settings": [
            {"setting": one.number, "values": one.values, "state": one.state, "error": one.error,
             "dev_rsum": plain(one.dev) if one.dev else None,
             "runs": {run.folder.name: sha256_of(run.folder / "results.json") for run in one.runs}}
            for one in outcomes
        ],
        "chosen": chosen.number, "sentences": [*sentences, last],
        "tables": {name: table.to_dict("records") for name, table in tables.items()},
    })  # fmt: skip
    return text


@quiet_optuna()
def _draw(sweep: Sweep, varied: list[str], complete: int) -> list[str]:
    """Draw Optuna's own figures into the sweep's folder; return their names."""
    dev, study = f"{sweep.base.chosen_by} rsum", sweep.study()
    figures: dict[str, Callable[..., Any]] = {
        "sweep": partial(plots.plot_slice, params=varied, target_name=dev),
        "epochs": plots.plot_intermediate_values,
        "history": partial(plots.plot_optimization_history, target_name=dev),
    }
    if len(varied) > 1 and complete >= COMPLETE_FIRST:
        figures["importances"] = partial(plots.plot_param_importances, params=varied, target_name=dev)
    for name, draw in figures.items():
        # Optuna would leave its style to all that follows.
        with plt.style.context(STYLE), atomic_path(sweep.folder / f"{name}.png") as path:
            figure = np.ravel(draw(study))[0].figure
            figure.savefig(path, format="png")
            plt.close(figure)
    return list(figures)


def _sentences(sweep: Sweep, outcomes: Sequence[Outcome], varied: list[str], split: str) -> list[str]:
    """What the table means, and last, after the table of the chosen setting, what its numbers are worth."""
    dev, (chosen, *others) = sweep.base.chosen_by, [one for one in outcomes if one.runs]
    config = {**sweep.base.to_dict(), **chosen.values}
    names = dict.fromkeys(name for name in ("model", "loss", "epochs", *chosen.values) if name not in varied)
    same = ", ".join(f"{name} {json.dumps(config[name])}" for name in names)
    sentences = [
        f"In all settings: {same}. Sorted by rsum on {dev}, mean ± sample standard deviation over seeds. **Chosen by "
        f"that alone: setting {chosen.number}.**"
    ]
    if others:
        best, after = ([run.results["dev_rsum"] for run in one.runs] for one in (chosen, others[0]))
        sentences.append(
            f"Setting {chosen.number} − setting {others[0].number}, the next: {paired_interval(best, after)} in rsum "
            f"on {dev} (95 % over seeds, paired t), and the best of many is in part the luckiest."
        )
    if any(one.state == "pruned" for one in outcomes):
        sentences.append(PRUNED)
    if split == dev:
        last = f"There is no test split here: these are the numbers on {split} which chose, and so flatter the setting."
    else:
        last = (
            f"Only the chosen setting's numbers on {split} are shown. Those of the others had no part in the choice; "
            "they are in their run folders."
        )
    return [*sentences, last]
