"""`make compare`: every loss with the same model, budget and tuning effort; chosen on dev, reported on test.

Each loss gets three settings, its defaults and two with another value of a main parameter. All are trained a few epochs
with one seed, the best on dev is trained in full with every seed. Then coefficients for the polynomial loss, found from
the scores of trained models, are chosen and trained in the same way.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from uwml_lib.config import ExperimentConfig
from uwml_lib.evaluation.statistics import compare, compare_all, summarize
from uwml_lib.reports.report import Report
from uwml_lib.reports.tables import mean_and_std, results_table, run_table
from uwml_lib.runs import Run, StudyRuns, dev_batches
from uwml_lib.studies.side_by_side import train_all
from uwml_lib.studies.study import Groups, Losses, Plan, Request, Study
from uwml_lib.studies.tuning import NO_DEAD_ZONE
from uwml_lib.support.progress import counted
from uwml_lib.weighting import from_scores, positives_and_hardest_negatives

MARGINS: tuple[dict[str, Any], ...] = ({}, {"margin": 0.1}, {"margin": 0.3})
GRID: Losses = {
    **dict.fromkeys(("triplet", "triplet_all", "triplet_semihard"), MARGINS),
    "triplet_soft": ({}, {"scale": 10.0}, {"scale": 30.0}),
    **dict.fromkeys(("polynomial", "polynomial_average", "polynomial_public_variant", "polynomial_relative"), MARGINS),
    "infonce": ({}, {"temperature": 0.03}, {"temperature": 0.15}),
    "sigmoid": ({}, {"bias": -5.0}, {"scale": 20.0}),
    "multi_similarity": ({}, {"base": 0.2}, {"beta": 20.0}),
    "circle": ({}, {"relaxation": 0.25}, {"gamma": 40.0}),
}
"""Loss -> three settings to choose from, the defaults first."""

TUNING_EPOCHS = 4


def plan(request: Request) -> Plan:
    """The tuning; a tiny test tries the defaults alone. What is compared follows from it: see `train_the_chosen`."""
    return {"tuning": _few(request, {loss: of[:1] if request.smoke else of for loss, of in GRID.items()})}


def _few(request: Request, losses: Losses) -> list[ExperimentConfig]:
    """To choose by: a few epochs with one seed."""
    return request.once().grid({"epochs": min(TUNING_EPOCHS, request.base.epochs)}, losses=losses)


def train_the_chosen(request: Request, groups: Groups) -> Groups:
    """Train each loss's best setting in full, then choose and train coefficients for the polynomial loss."""
    chosen = {loss: [best(run for run in groups["tuning"] if run.config.loss == loss)] for loss in GRID}
    request.say(f"all losses: {len(chosen) * len(request.seeds)} runs of {counted(request.base.epochs, 'epoch')}")
    runs = train_all(request.grid({}, losses=chosen), request.say)
    request.say("coefficients of the polynomial loss")
    tuning = train_all(_few(request, {"polynomial": candidate_options(runs)}), request.say)
    fitted = train_all(request.grid({}, losses={"polynomial": [best(tuning)]}), request.say)
    return {"runs": runs, "coefficients": fitted, "coefficient_tuning": tuning}


def best(runs: Iterable[Run]) -> dict[str, Any]:
    """Return the loss options of the run with the best dev rsum, the first of equals."""
    return max(runs, key=lambda run: run.results["dev_rsum"]).config.loss_options


def candidate_options(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Loss options with other coefficients: from the dev scores of two trained models, and without a dead zone."""
    first, found = {run.config.loss: run for run in reversed(runs)}, []
    for loss in ("polynomial", "triplet"):
        # To three digits: the last bits differ between machines, and would give the runs another name on each.
        positives, negatives = positives_and_hardest_negatives(dev_batches(first[loss].folder))
        found.append(from_scores(positives.numpy().round(3), negatives.numpy().round(3))._asdict())
    margin = {name: value for name, value in first["polynomial"].config.loss_options.items() if name == "margin"}
    # A positive above what was seen is clamped anyway, so no ceiling is needed.
    return [{**margin, **options, "positive_ceiling": None} for options in (*found, NO_DEAD_ZONE)]


def report(study: StudyRuns) -> Report:
    """The table of all losses, and which of them differ from the polynomial loss."""
    by_loss, findings = study.by_loss(), []
    polynomial = by_loss.get("polynomial", [])
    ranked = sorted(by_loss.items(), key=lambda item: -summarize([run.rsum for run in item[1]]).mean)
    if polynomial and len(ranked) > 1:
        highest = ", ".join(f"{loss} {mean_and_std(runs)}" for loss, runs in ranked[:3])
        compared = compare_all({loss: (runs, polynomial) for loss, runs in ranked if loss != "polynomial"})
        ahead, behind, undecided = (
            ", ".join(loss for loss in compared if compared[loss].winner == side) for side in ("a", "b", "")
        )
        findings.append(
            f"{len(ranked)} losses on {study.dataset}, each tuned a little and alike. The highest mean rsums: "
            f"{highest}. The polynomial loss with its released coefficients: {mean_and_std(polynomial)}. Better than "
            f"it: {ahead or 'none'}; worse: {behind or 'none'}; not decided: {undecided or 'none'} "
            f"(corrected for {counted(len(compared), 'comparison')})."
        )
    if study["coefficients"]:
        change = compare(study["coefficients"], polynomial)
        findings.append(
            f"The polynomial loss on {study.dataset} with coefficients that fit the scores of trained models, chosen on"
            f" dev: its rsum changes by {change.over_seeds} against the released ones, "
            f"{'a' if change.winner else 'not a'} statistically significant difference."
        )
    title = f"{study.dataset}: every loss, tuned alike"
    return Report(title, results_table(study), run_table(study.all_runs), notes=study.remarks, findings=tuple(findings))


STUDY = Study(
    "compare", ("07_loss_comparison", "08_choosing_coefficients"), plan, report, more=train_the_chosen,
    title="All losses", figure="convergence",
)  # fmt: skip
