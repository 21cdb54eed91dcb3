"""`make compare`: every loss with the same model, budget and tuning effort; chosen on dev, reported on test.

Each loss gets three settings, its defaults and two with another value of a main parameter. All are trained a few epochs
with one seed, the best on dev is trained in full with every seed. Then coefficients for the polynomial loss, found from
the scores of trained models, are chosen and trained in the same way.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from uwml_lib.config import ExperimentConfig
from uwml_lib.evaluation.statistics import compare, compare_all, summarize
from uwml_lib.reports.report import Report
from uwml_lib.reports.tables import mean_and_std, results_table, run_table
from uwml_lib.runs.run import Run
from uwml_lib.runs.scoring import dev_batches
from uwml_lib.runs.study_runs import StudyRuns
from uwml_lib.studies.study import Groups, Plan, Request, Study
from uwml_lib.weighting import Coefficients, from_scores, positives_and_hardest_negatives

MARGINS: tuple[dict[str, Any], ...] = ({}, {"margin": 0.1}, {"margin": 0.3})
GRID: dict[str, tuple[dict[str, Any], ...]] = {
    "triplet": MARGINS,
    "triplet_all": MARGINS,
    "triplet_semihard": MARGINS,
    "triplet_soft": ({}, {"scale": 10.0}, {"scale": 30.0}),
    "polynomial": MARGINS,
    "polynomial_average": MARGINS,
    "polynomial_public_variant": MARGINS,
    "polynomial_relative": MARGINS,
    "infonce": ({}, {"temperature": 0.03}, {"temperature": 0.15}),
    "sigmoid": ({}, {"bias": -5.0}, {"scale": 20.0}),
    "multi_similarity": ({}, {"base": 0.2}, {"beta": 20.0}),
    "circle": ({}, {"relaxation": 0.25}, {"gamma": 40.0}),
}
"""Loss -> three settings to choose from, the defaults first."""

TUNING_EPOCHS = 4
NO_DEAD_ZONE = {"negative": (0.0, 0.0, 0.9)}


def plan(request: Request) -> Plan:
    """The tuning; a tiny test tries the defaults alone. What is compared follows from it: see `train_the_chosen`."""
    grid = {loss: options[:1] if request.smoke else options for loss, options in GRID.items()}
    return {"tuning": _settings(_few(request), grid)}


def train_the_chosen(request: Request, groups: Groups) -> Groups:
    """Train each loss's best setting in full, then choose and train coefficients for the polynomial loss."""
    chosen = {loss: (best(run for run in groups["tuning"] if run.config.loss == loss),) for loss in GRID}
    request.say(f"all losses: {len(chosen) * len(request.seeds)} runs of {request.base.epochs} epochs")
    losses = _in_full(request, chosen)
    request.say("coefficients of the polynomial loss")
    coefficient_tuning = request.train(_settings(_few(request), {"polynomial": candidate_options(losses)}))
    coefficients = _in_full(request, {"polynomial": (best(coefficient_tuning),)})
    return {"runs": losses, "coefficients": coefficients, "coefficient_tuning": coefficient_tuning}


def best(runs: Iterable[Run]) -> dict[str, Any]:
    """Return the loss options of the run with the best dev rsum, the first of equals."""
    return max(runs, key=lambda run: run.results["dev_rsum"]).config.loss_options


def candidate_options(runs: Sequence[Run]) -> tuple[dict[str, Any], ...]:
    """Loss options with other coefficients: from the dev scores of two trained models, and without a dead zone."""
    first = {run.config.loss: run for run in reversed(runs)}
    margin = {name: value for name, value in first["polynomial"].config.loss_options.items() if name == "margin"}
    found = [proposed_coefficients(first[loss])._asdict() for loss in ("polynomial", "triplet")]
    # A positive above what was seen is clamped anyway, so no ceiling is needed.
    return tuple({**margin, **options, "positive_ceiling": None} for options in (*found, NO_DEAD_ZONE))


def proposed_coefficients(run: Run) -> Coefficients:
    """Propose coefficients from the scores that a run's best model gives to dev pairs; see `from_scores`."""
    positives, negatives = positives_and_hardest_negatives(dev_batches(run.folder))
    # To three digits: the last bits differ between machines, and would give the runs another name on each.
    return from_scores(positives.numpy().round(3), negatives.numpy().round(3))


def report(study: StudyRuns) -> Report:
    """The table of all losses, and which of them differ from the polynomial loss."""
    return Report(
        title=f"{study.dataset}: every loss, tuned alike",
        table=results_table(study),
        runs=run_table(study.all_runs),
        findings=(*_ranking(study), *_coefficients(study)),
    )


def _ranking(study: StudyRuns) -> list[str]:
    by_loss = study.by_loss()
    if "polynomial" not in by_loss or len(by_loss) == 1:
        return []
    ranked = sorted(by_loss, key=lambda loss: -summarize([run.rsum for run in by_loss[loss]]).mean)
    best = ", ".join(f"{loss} {mean_and_std(by_loss[loss])}" for loss in ranked[:3])
    compared = compare_all({loss: (by_loss[loss], by_loss["polynomial"]) for loss in ranked if loss != "polynomial"})
    ahead, behind = ([loss for loss in compared if compared[loss].winner == side] for side in "ab")
    return [
        f"Among {len(ranked)} losses on {study.dataset}, each tuned a little and alike (so numbers differ from those "
        f"above), the highest means have {best}. The polynomial loss with its released coefficients has "
        f"{mean_and_std(by_loss['polynomial'])}; ahead of it: {', '.join(ahead) or 'none'}; behind it: "
        f"{', '.join(behind) or 'none'}; not decided: the others (corrected for {len(compared)} comparisons)."
    ]


def _coefficients(study: StudyRuns) -> list[str]:
    if not study["coefficients"]:
        return []
    compared = compare(study["coefficients"], study.by_loss()["polynomial"])
    return [
        "Other coefficients for the polynomial loss, chosen on dev among proposals that fit the scores of trained "
        f"models, change its rsum by {compared.over_seeds} against the released ones: "
        f"{'a difference is' if compared.winner else 'no difference is'} shown."
    ]


def _few(request: Request) -> ExperimentConfig:
    return replace(request.base, epochs=min(TUNING_EPOCHS, request.base.epochs), seed=request.seeds[0])


def _in_full(request: Request, chosen: Mapping[str, Sequence[dict[str, Any]]]) -> list[Run]:
    return request.train([
        config for seed in request.seeds for config in _settings(replace(request.base, seed=seed), chosen)
    ])  # fmt: skip


def _settings(base: ExperimentConfig, grid: Mapping[str, Sequence[dict[str, Any]]]) -> list[ExperimentConfig]:
    return [replace(base, loss=loss, loss_options=options) for loss, settings in grid.items() for options in settings]


STUDY = Study(
    name="compare",
    notebooks=("05_loss_comparison", "06_choosing_coefficients"),
    plan=plan,
    more=train_the_chosen,
    report=report,
)
