"""`make fidelity`: what habits of the released code change, by the same trainings with them and without."""

from dataclasses import replace
from typing import Any

import pandas as pd

from uwml_lib.config import FIDELITY
from uwml_lib.datasets import available_tokenizer
from uwml_lib.evaluation.statistics import Comparison, compare_all
from uwml_lib.reports.report import Report
from uwml_lib.reports.tables import COLUMNS, RECALL_AT_1_AND_RSUM, differences, mean_and_std, run_table
from uwml_lib.runs.run import Run
from uwml_lib.runs.study_runs import StudyRuns
from uwml_lib.studies.study import Plan, Request, Study

HABITS: dict[str, dict[str, Any]] = {
    "none": {},
    "captions as bytes": {"captions": FIDELITY["released"]["captions"]},
    "siblings as negatives": {"siblings": FIDELITY["released"]["siblings"]},
    "all four": FIDELITY["released"],
}
"""Habit of the released code -> settings; the other two of the four are no matter of training."""


def plan(request: Request) -> Plan:
    """The polynomial loss without any habit ("runs") and with each ("released"); those alone that can be had here."""
    habits = HABITS
    if available_tokenizer() != "punkt":
        request.say("captions as bytes: left out, for nltk's Punkt is not here; `make setup` downloads it")
        habits = {name: changes for name, changes in HABITS.items() if "captions" not in changes}
    base = replace(request.base, loss="polynomial")
    of = {name: [replace(base, seed=seed, **habits[name]) for seed in request.seeds] for name in habits}
    return {"runs": of.pop("none"), "released": [config for configs in of.values() for config in configs]}


def habit_of(run: Run) -> str:
    """Name the habit of the released code that a run was trained with, the most of several."""
    found = [
        name for name, changes in HABITS.items() if all(getattr(run.config, key) == changes[key] for key in changes)
    ]
    return found[-1]


def by_habit(study: StudyRuns) -> dict[str, list[Run]]:
    """Habit -> its runs."""
    found: dict[str, list[Run]] = {}
    for run in (*study.runs, *study["released"]):
        found.setdefault(habit_of(run), []).append(run)
    return found


def compared(study: StudyRuns) -> dict[str, Comparison]:
    """Habit -> how its runs compare with those without any, corrected for the number of habits."""
    groups = by_habit(study)
    return compare_all({habit: (runs, groups["none"]) for habit, runs in groups.items() if habit != "none"})


def fidelity_table(study: StudyRuns) -> pd.DataFrame:
    """One row a habit of the released code, after one without any: mean ± std, and the difference in rsum to that."""
    found, rows = compared(study), {}
    for habit, runs in by_habit(study).items():
        row = {COLUMNS[name]: mean_and_std(runs, name) for name in RECALL_AT_1_AND_RSUM}
        if habit in found:
            row |= {f"difference, {name}": cell for name, cell in differences(found[habit]).items()}
        rows[habit] = row | {"seeds": len(runs)}
    table = pd.DataFrame.from_dict(rows, orient="index").fillna("")
    table.index.name = f"habit ({study.split} split)"
    return table


def report(study: StudyRuns) -> Report:
    """The table, and which habits have an effect."""
    found = compared(study)
    said = "; ".join(f"{habit} {comparison.over_seeds}" for habit, comparison in found.items())
    shown = ", ".join(habit for habit, comparison in found.items() if comparison.winner)
    end = f"statistically significant: {shown}" if shown else "none is statistically significant"
    habits = [habit_of(run) for run in study.all_runs]
    return Report(
        title=f"{study.dataset}: habits of the released code",
        table=fidelity_table(study),
        runs=run_table(study.all_runs, habit=habits),
        findings=(f"Habits of the released code on {study.dataset}, change in rsum: {said}; {end}.",) if found else (),
    )


STUDY = Study(name="fidelity", notebooks=("07_fidelity",), plan=plan, report=report)
