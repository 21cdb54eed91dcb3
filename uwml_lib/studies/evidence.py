"""`make evidence`: which loss is better on one's photographs, tuned alike and with seeds enough to decide.

Fixed in advance: the losses, the seeds, and when there are more of them. How each loss is tuned, `alike` says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from uwml_lib.evaluation.statistics import compare
from uwml_lib.reports.report import Report
from uwml_lib.reports.tuned_losses import FITTED, draw_scores, tuned_losses
from uwml_lib.runs import Run, StudyRuns
from uwml_lib.runs.study_runs import save_study
from uwml_lib.studies.alike import FIRST, train_alike
from uwml_lib.studies.offers import PILOT
from uwml_lib.studies.score_ranges import note_scores
from uwml_lib.studies.study import Groups, Request, Study
from uwml_lib.support import paths
from uwml_lib.support.files import read_json
from uwml_lib.support.paths import report_folder

OTHERS = ("polynomial_relative", "infonce", "multi_similarity")
SEEDS, OTHER_SEEDS, MODEL_SEEDS = 10, 5, 3
WIDEST = 6.0
"""Points of rsum: where the 95 % interval of the two losses' difference is wider, as many seeds again are trained."""
OTHER_MODELS: tuple[dict[str, Any], ...] = (
    {"direction": "t2i", "lambda_softmax": None},
    {"model": "vse_infinity", "lambda_softmax": None},
)
"""Settings of the other models; lambda was chosen for SCAN i2t, so SCAN t2i has its source's."""


def train_the_tuned(request: Request, groups: Groups) -> Groups:
    """Tune and train the two losses, then the others, then the two on other models: what matters most comes first.

    After each of these what there is gets noted, for it may take days, and `uwml report` shows it in the meantime.
    """
    dataset, seeds, found = request.base.dataset, sorted(request.seeds), Groups(runs=[], coefficients=[], models=[])

    def train(group: str, losses: Sequence[str], of: Sequence[int], *models: Mapping[str, Any]) -> None:
        found[group] += (runs := train_alike(request, losses, of, *models))
        study = _note(dataset, found)
        note_scores(request, [run for run in runs if run.seed == seeds[0]])
        draw_scores(study, report_folder(dataset) / f"figures/{STUDY.figure[0]}.png")

    train("runs", FIRST, seeds)
    if interval_is_wide(found["runs"]) and not request.smoke:
        more = range(max(seeds) + 1, max(seeds) + 1 + len(seeds))
        request.say(f"the interval is wider than {WIDEST:g} points of rsum: seeds {more[0]} to {more[-1]} too")
        train("runs", FIRST, more)
    train("coefficients", (FITTED,), seeds[:OTHER_SEEDS])
    train("runs", OTHERS, seeds[:OTHER_SEEDS])
    train("models", FIRST, seeds[:MODEL_SEEDS], *OTHER_MODELS)
    return found


def _note(dataset: str, found: Groups) -> StudyRuns:
    """Note what there is, unless more is noted already, as of a study that is finished and made again; return it."""
    path = paths.RUNS / dataset / f"{STUDY.name}.json"
    known = {*chain(*read_json(path).values())} if path.exists() else set()
    if not known.issuperset(run.folder.name for run in chain(*found.values())):
        save_study(dataset, STUDY.name, found)
    return StudyRuns(dataset, {group: tuple(runs) for group, runs in found.items()})


def interval_is_wide(two: Sequence[Run]) -> bool:
    """Say whether the two losses are not compared closely enough; whichever is ahead."""
    return not width(two) <= WIDEST


def width(two: Sequence[Run]) -> float:
    """Return how wide the 95 % interval over seeds of the two losses' difference is, in points of rsum."""
    by_loss = StudyRuns("", {"runs": tuple(two)}).by_loss()
    over_seeds = compare(by_loss["polynomial"], by_loss["triplet"]).over_seeds
    return over_seeds.high - over_seeds.low


def report(study: StudyRuns) -> Report:
    """Report losses tuned alike, and by which rule there are so many seeds."""
    found = tuned_losses(study, PILOT.get(study.dataset, {}))
    seeds = sorted({run.seed for run in study.runs})
    there = {*study.by_loss(), *(FITTED for _ in study["coefficients"])}
    missing = [loss for loss in (FITTED, *OTHERS) if loss not in there] + ["other models"] * (not study["models"])
    notes = [*found.notes]
    if len(seeds) in (SEEDS, 2 * SEEDS):  # no others were asked for
        first = [run for run in study.runs if run.config.loss in FIRST and run.seed in seeds[:SEEDS]]
        if len(seeds) == SEEDS and interval_is_wide(first):
            missing = [f"{SEEDS} more seeds of triplet and polynomial", *missing]
        notes.append(
            f"The numbers of seeds were fixed before any training: {SEEDS} of triplet and polynomial, and {SEEDS} more "
            f"if the interval over seeds of their difference is then wider than {WIDEST:g} points of rsum, whichever "
            f"is ahead (it was {width(first):.1f} wide); {OTHER_SEEDS} of the other losses, {MODEL_SEEDS} on other "
            "models, for which nothing was tuned: they have the settings of the first."
        )
    if missing:
        notes.append(f"Not trained yet: {', '.join(missing)}.")
    return replace(found, notes=tuple(notes))


STUDY = Study(
    "evidence", (), report, more=train_the_tuned, seeds=tuple(range(SEEDS)), smoke_seeds=(0, 1),
    title="Losses tuned alike",
    figure=("score_ranges", "Where positives and hardest negatives of each loss lie, over the dead zone and below it"),
)  # fmt: skip
