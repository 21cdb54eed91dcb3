"""`make sweep`: check what is to be tried, tune, and report: tables, the test numbers of the best, Optuna's figures."""

import json
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from optuna.trial import TrialState
from optuna.visualization import matplotlib as plots

from uwml_lib.evaluation.statistics import paired_interval
from uwml_lib.reports.figures import STYLE
from uwml_lib.reports.report import plain_markdown, table_markdown
from uwml_lib.reports.tables import digests, plain, results_table, run_table
from uwml_lib.runs.study_runs import StudyRuns
from uwml_lib.studies.engine import build_pages
from uwml_lib.studies.trying import check_sweep
from uwml_lib.studies.tuning import COMPLETE_FIRST, Outcome, Sweep, quiet_optuna, tune
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import atomic_path, lock, write_sealed_json, write_text
from uwml_lib.support.progress import Say, counted, say


def tune_and_report(sweeps: Sequence[Sweep], say: Say = say) -> dict[str, Any]:
    """Tune one loss after the other and report each; return the text, and loss -> the values that were chosen.

    Raises UWMLError before anything is trained for what cannot be, and in the end, when all else is done, if settings
    failed.
    """
    for sweep in sweeps:
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
        failed = f"{counted(len(failures), 'setting')} failed; the same command tries again:"
        raise UWMLError("\n".join([failed, *failures]))
    return {"markdown": "\n\n".join(texts), "chosen": chosen}


def write_results(sweep: Sweep, outcomes: Sequence[Outcome]) -> str:
    """Write sweep.md, sweep.json and the figures into the sweep's folder; return the text without the list of runs.

    outcomes: of `tune`, at least one of them complete.
    """
    chosen, dev, dataset = outcomes[0], sweep.base.chosen_by, sweep.base.dataset
    split = chosen.runs[0].results["split"]
    differ = [name for name in chosen.values if any(one.values[name] != chosen.values[name] for one in outcomes)]
    varied = differ or list(chosen.values)
    settings = pd.DataFrame(
        {"setting": one.number, **{name: json.dumps(one.values[name]) for name in varied}}
        | {f"{dev} rsum": one.dev.mean_and_std if one.dev else "", "seeds": len(one.runs) or "", "state": one.state}
        for one in outcomes
    )
    numbers, every = zip(*((one.number, run) for one in outcomes for run in one.runs), strict=True)
    runs = run_table(every, setting=[*numbers]).reset_index()
    if split != dev:  # of what was not chosen, the dev numbers alone
        runs = runs.drop(columns=f"{split} rsum")
    best = StudyRuns(dataset, {"runs": chosen.runs})
    results = results_table(best).reset_index()
    tables = {"settings": settings, "chosen": results, "runs": runs}
    shown = {name: table_markdown(table, index=False) for name, table in tables.items()}
    sentences = _sentences(sweep, outcomes, varied, split)
    title = f"## {plain_markdown(dataset)}, sweep {plain_markdown(sweep.name)}: {counted(len(outcomes), 'setting')}"
    text = "\n\n".join([title, shown["settings"], *sentences[:-1], shown["chosen"], sentences[-1], *best.remarks])
    lists = [f"![{name}]({name}.png)" for name in _draw(sweep, varied)] + ["### Runs", shown["runs"]]
    if failed := [f"- setting {one.number}: {one.error}" for one in outcomes if one.error]:
        lists += ["### Failed", "\n".join(failed)]
    write_text(sweep.folder / "sweep.md", "\n\n".join([text, *lists]) + "\n")
    write_sealed_json(sweep.folder / "sweep.json", {
        "dataset": dataset, "name": sweep.name, "split": split, "chosen_by": dev, "varied": varied,
        "settings": [
            {"setting": one.number, "values": one.values, "state": one.state, "error": one.error,
             "dev_rsum": plain(one.dev) if one.dev else None,
             "runs": digests(one.runs)}
            for one in outcomes
        ],
        "chosen": chosen.number, "sentences": sentences,
        "tables": {name: table.to_dict("records") for name, table in tables.items()},
    })  # fmt: skip
    return text


@quiet_optuna()
def _draw(sweep: Sweep, varied: list[str]) -> list[str]:
    """Draw Optuna's own figures into the sweep's folder; return their names."""
    study, dev = sweep.study(), f"{sweep.base.chosen_by} rsum"
    with plt.style.context(STYLE):  # Optuna would leave its style to all that follows
        figures: dict[str, Any] = {
            "sweep": plots.plot_slice(study, params=varied, target_name=dev),
            "epochs": plots.plot_intermediate_values(study),
            "history": plots.plot_optimization_history(study, target_name=dev),
        }
        if len(varied) > 1 and len(study.get_trials(states=(TrialState.COMPLETE,))) >= COMPLETE_FIRST:
            figures["importances"] = plots.plot_param_importances(study, params=varied, target_name=dev)
        for name, axes in figures.items():
            figure = np.ravel(axes)[0].figure
            with atomic_path(sweep.folder / f"{name}.png") as path:
                figure.savefig(path, format="png")
            plt.close(figure)
    return list(figures)


def _sentences(sweep: Sweep, outcomes: Sequence[Outcome], varied: list[str], split: str) -> list[str]:
    """What the table means, and last, after the table of the chosen setting, what its numbers are worth."""
    dev, (chosen, *others) = sweep.base.chosen_by, outcomes
    config = sweep.base.to_dict() | chosen.values
    names = dict.fromkeys(name for name in ("model", "loss", "epochs", *chosen.values) if name not in varied)
    same = ", ".join(f"{name} {json.dumps(config[name])}" for name in names)
    sentences = [
        f"In all settings: {same}. Sorted by rsum on {dev}, mean ± sample standard deviation over seeds. **Chosen by "
        f"that alone: setting {chosen.number}.**"
    ]
    if others and others[0].runs:
        best, after = ([run.results["dev_rsum"] for run in one.runs] for one in outcomes[:2])
        sentences.append(
            f"Setting {chosen.number} − setting {others[0].number}, the next: {paired_interval(best, after)} in rsum "
            f"on {dev} (95 % over seeds, paired t), and the best of many is in part the luckiest."
        )
    if any(one.state == "pruned" for one in outcomes):
        sentences.append(
            "A setting was pruned if its first seed, after half of the epochs and one after the warm-up, fell below "
            "the median of the complete ones; whether it would have caught up is not known."
        )
    sentences.append(
        f"There is no test split here: these are the numbers on {split} which chose, and so flatter the setting."
        if split == dev
        else f"Only the chosen setting's numbers on {split} are shown. Those of the others had no part in the choice; "
        "they are in their run folders."
    )
    return sentences
