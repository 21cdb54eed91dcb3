"""`make compare`: every loss with the same model, budget and tuning effort; chosen on dev, reported on test.

Each loss gets three settings, its defaults and two with another value of a main parameter. All are trained a few epochs
with one seed, the best on dev is trained in full with every seed. Then coefficients for the polynomial loss, found from
the scores of trained models, are chosen and trained in the same way.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from uwml_lib.config import ExperimentConfig
from uwml_lib.reports.site import site
from uwml_lib.reports.tables import results_table
from uwml_lib.runs.groups import load_experiment, save_experiment
from uwml_lib.runs.run import Run
from uwml_lib.runs.scoring import dev_batches
from uwml_lib.studies.engine import Profile, base_config, check_seeds, execute_notebooks, prepare
from uwml_lib.studies.side_by_side import train_all
from uwml_lib.support.files import lock
from uwml_lib.support.paths import report_folder
from uwml_lib.support.progress import Say, say
from uwml_lib.training.checks import check_config
from uwml_lib.weighting.coefficients import Coefficients, from_scores
from uwml_lib.weighting.weights import positives_and_hardest_negatives

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


def compare(
    dataset: str = "scenes",
    data_root: str = "",
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    profile: Profile = "full",
    say: Say = say,
) -> str:
    """Train and tune every loss, execute notebooks 05 and 06, and return the table.

    seeds: None means 0, 1, 2 (smoke: 0). epochs: None means the preset's. profile: "smoke" tries the defaults alone, on
    tiny data.
    """
    smoke = profile == "smoke"
    seeds = check_seeds(seeds if seeds is not None else (0,) if smoke else (0, 1, 2))
    base = base_config(dataset, data_root, epochs, profile)
    few = min(TUNING_EPOCHS, base.epochs)
    grid = {loss: options[:1] if smoke else options for loss, options in GRID.items()}
    for config in _settings(base, grid):
        check_config(config)
    parameters = prepare("compare", base, say)
    train = partial(train_all, say=say)
    with lock(report_folder(base.dataset), say):
        say(f"1/4 tuning: {sum(map(len, grid.values()))} runs of {few} epochs, seed {seeds[0]}")
        tuning = train(_settings(replace(base, epochs=few, seed=seeds[0]), grid))
        chosen = {loss: (best(run for run in tuning if run.config["loss"] == loss),) for loss in grid}
        say(f"2/4 all losses: {len(grid) * len(seeds)} runs of {base.epochs} epochs")
        full = [config for seed in seeds for config in _settings(replace(base, seed=seed), chosen)]
        losses = train(full)
        say("3/4 coefficients of the polynomial loss")
        candidates = {"polynomial": candidate_options(losses)}
        coefficient_tuning = train(_settings(replace(base, epochs=few, seed=seeds[0]), candidates))
        selected = {"polynomial": (best(coefficient_tuning),)}
        coefficients = train([
            config for seed in seeds for config in _settings(replace(base, seed=seed), selected)
        ])  # fmt: skip
        groups = {"runs": losses, "tuning": tuning, "coefficients": coefficients}
        groups["coefficient_tuning"] = coefficient_tuning
        save_experiment(base.dataset, "compare", **{name: [run.folder for run in groups[name]] for name in groups})
        say("4/4 notebooks and report")
        execute_notebooks("compare", base.dataset, parameters, say)
        index = site.build(say)
    text = results_table(load_experiment(base.dataset, "compare")).to_markdown()
    say(f"\n{text}\n\nReport: {index}")
    return text


def best(runs: Iterable[Run]) -> dict[str, Any]:
    """Return the loss options of the run with the best dev rsum, the first of equals."""
    return max(runs, key=lambda run: run.results["dev_rsum"]).config["loss_options"]


def candidate_options(runs: Sequence[Run]) -> tuple[dict[str, Any], ...]:
    """Loss options with other coefficients: from the dev scores of two trained models, and without a dead zone."""
    first = {run.config["loss"]: run for run in reversed(runs)}
    margin = {name: value for name, value in first["polynomial"].config["loss_options"].items() if name == "margin"}
    found = [proposed_coefficients(first[loss])._asdict() for loss in ("polynomial", "triplet")]
    # A positive above what was seen is clamped anyway, so no ceiling is needed.
    return tuple({**margin, **options, "positive_ceiling": None} for options in (*found, NO_DEAD_ZONE))


def proposed_coefficients(run: Run) -> Coefficients:
    """Propose coefficients from the scores that a run's best model gives to dev pairs; see `from_scores`."""
    positives, negatives = positives_and_hardest_negatives(dev_batches(run.folder))
    # To three digits: the last bits differ between machines, and would give the runs another name on each.
    return from_scores(positives.numpy().round(3), negatives.numpy().round(3))


def _settings(base: ExperimentConfig, grid: Mapping[str, Sequence[dict[str, Any]]]) -> list[ExperimentConfig]:
    return [replace(base, loss=loss, loss_options=options) for loss, settings in grid.items() for options in settings]
