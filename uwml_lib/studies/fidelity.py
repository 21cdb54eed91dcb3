"""`make fidelity`: what habits of the released code change, by the same trainings with them and without."""

from typing import Any

import pandas as pd

from uwml_lib.config import FIDELITY
from uwml_lib.datasets import available_tokenizer
from uwml_lib.evaluation.statistics import Comparison, compare_all
from uwml_lib.reports import tables
from uwml_lib.reports.report import Report
from uwml_lib.runs import Run, StudyRuns
from uwml_lib.studies.study import Losses, Plan, Request, Study

HABITS: dict[str, dict[str, Any]] = {
    "none": {},
    "captions as bytes": {"captions": FIDELITY["released"]["captions"]},
    "siblings as negatives": {"siblings": FIDELITY["released"]["siblings"]},
    "all four": FIDELITY["released"],
}
"""Habit of the released code -> settings; the other two of the four are no matter of training."""
ALL_FOUR = (
    " All four: captions as bytes, siblings as negatives, dev cut to 5,000 captions, evaluation in float64; the last "
    "two change no training."
)


def plan(request: Request) -> Plan:
    """The polynomial loss without any habit ("runs") and with each ("released"); those alone that can be had here."""
    habits = HABITS
    if available_tokenizer() != "punkt":
        request.say("captions as bytes: left out, for nltk's Punkt is not here; `make setup` downloads it")
        habits = {name: changes for name, changes in HABITS.items() if "captions" not in changes}
    without, *with_habit = habits.values()
    polynomial: Losses = {"polynomial": [{}]}
    return {"runs": request.grid(without, losses=polynomial), "released": request.grid(*with_habit, losses=polynomial)}


def habit_of(run: Run) -> str:
    """Name the habit of the released code that a run was trained with, the most of several."""
    settings = run.config.to_dict().items()
    return [name for name, changes in HABITS.items() if changes.items() <= settings][-1]


def compared(study: StudyRuns) -> tuple[dict[str, list[Run]], dict[str, Comparison]]:
    """Habit -> its runs, and how they compare with those without any, corrected for the number of habits."""
    runs: dict[str, list[Run]] = {}
    for run in (*study.runs, *study["released"]):
        runs.setdefault(habit_of(run), []).append(run)
    return runs, compare_all({habit: (runs[habit], runs["none"]) for habit in runs if habit != "none"})


def fidelity_table(study: StudyRuns) -> pd.DataFrame:
    """One row a habit of the released code, after one without any: mean ± std, and the difference in rsum to that."""
    (groups, comparisons), rows = compared(study), {}
    for habit, runs in groups.items():
        row = {tables.COLUMNS[name]: tables.mean_and_std(runs, name) for name in tables.RECALL_AT_1_AND_RSUM}
        if habit in comparisons:
            row |= {f"difference, {name}": cell for name, cell in tables.differences(comparisons[habit]).items()}
        rows[habit] = row | {"seeds": len(runs)}
    return pd.DataFrame.from_dict(rows, orient="index").fillna("").rename_axis(f"habit ({study.split} split)")


def report(study: StudyRuns) -> Report:
    """The table, and which habits have an effect."""
    _, found = compared(study)
    said = "; ".join(f"{habit} {comparison.over_seeds}" for habit, comparison in found.items())
    shown = ", ".join(habit for habit, comparison in found.items() if comparison.winner)
    end = f"statistically significant: {shown}" if shown else "none is statistically significant"
    findings = (f"Habits of the released code on {study.dataset}, change in rsum: {said}; {end}.",) if found else ()
    four = ALL_FOUR * ("all four" in found)
    runs = tables.run_table(study.all_runs, habit=[habit_of(run) for run in study.all_runs])
    return Report(
        f"{study.dataset}: habits of the released code",
        fidelity_table(study),
        runs,
        about=(f"Polynomial loss, {study.runs[0].model}; {tables.settings_in_words(study.all_runs)}." + four,),
        notes=(tables.intervals_in_words(len(found)), *study.remarks),
        findings=findings,
        commands=tables.commands_in_words(study.all_runs),
    )


STUDY = Study(
    "fidelity", ("09_fidelity",), report, plan, title="Habits of the release",
    figure=("habits", "Change in rsum by each habit of the released code, with 95 % intervals over seeds and images"),
)  # fmt: skip
