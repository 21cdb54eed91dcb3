"""`make evidence`: which loss is better on one's photographs, tuned alike and with seeds enough to decide.

Fixed in advance: the losses, what is tuned of each and how (`alike`), the seeds, and when there are more of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from uwml_lib.evaluation.statistics import Comparison, compare, compare_all
from uwml_lib.reports.report import Report
from uwml_lib.reports.tables import COLUMNS, RECALL_AT_1_AND_RSUM, differences, mean_and_std, run_table
from uwml_lib.runs import Run, StudyRuns
from uwml_lib.studies.alike import FITTED, tune_alike
from uwml_lib.studies.study import Groups, Plan, Request, Study

TWO = ("triplet", "polynomial")
OTHERS = ("polynomial_relative", "infonce", "multi_similarity")
SEEDS, OTHER_SEEDS, MODEL_SEEDS = 10, 5, 3
WIDEST = 6.0
"""Points of rsum: where the 95 % interval of the two losses' difference is wider, as many seeds again are trained."""
OTHER_MODELS: tuple[dict[str, Any], ...] = (
    {"direction": "t2i", "lambda_softmax": None},
    {"model": "vse_infinity", "lambda_softmax": None},
)
"""Settings of the other models; lambda was chosen for SCAN i2t, so SCAN t2i has its source's."""


def plan(request: Request) -> Plan:
    """Nothing: what is trained follows from what is chosen."""
    return {}


def train_the_tuned(request: Request, groups: Groups) -> Groups:
    """Tune all losses, the two first; then train the two, the others, and the two on other models."""
    tuned = tune_alike(request, (*TWO, FITTED, *OTHERS))
    request = replace(request, tuned=tuned)
    two = request.train(request.grid({}))
    if interval_is_wide(two) and not request.smoke:
        more = [seed + max(request.seeds) + 1 for seed in range(len(request.seeds))]
        request.say(f"the interval is wider than {WIDEST:g} points of rsum: seeds {more[0]} to {more[-1]} too")
        two += request.train(replace(request, seeds=more).grid({}))
    fewer = replace(request, seeds=request.seeds[:OTHER_SEEDS])
    others = request.train(fewer.grid({}, losses=dict.fromkeys(OTHERS, ({},))))
    fitted = request.train(fewer.grid({}, losses={FITTED: ({},)}))
    on_models = request.train(replace(request, seeds=request.seeds[:MODEL_SEEDS]).grid(*OTHER_MODELS))
    return {"runs": [*two, *others], "coefficients": fitted, "models": on_models}


def interval_is_wide(two: Sequence[Run]) -> bool:
    """Say whether the two losses are not compared closely enough; whichever is ahead."""
    by_loss = StudyRuns("", {"runs": tuple(two)}).by_loss()
    over_seeds = compare(by_loss["polynomial"], by_loss["triplet"]).over_seeds
    return not over_seeds.high - over_seeds.low <= WIDEST


def groups_of(study: StudyRuns) -> dict[tuple[str, str], list[Run]]:
    """(Model, loss) -> its runs, in the order of the table; the fitted coefficients under the name `FITTED`."""
    main = study.runs[0].model
    groups = {(main, loss): runs for loss, runs in study.by_loss().items()}
    if study["coefficients"]:
        groups[main, FITTED] = [*study["coefficients"]]
    for model, by_loss in StudyRuns(study.dataset, {"runs": study["models"]}).by_model().items():
        groups |= {(model, loss): runs for loss, runs in by_loss.items()}
    return groups


def comparisons(groups: Mapping[tuple[str, str], list[Run]]) -> dict[tuple[str, str], Comparison]:
    """(Model, loss) -> how it compares with the triplet loss on that model.

    The question asked first, the polynomial loss on the first model, stands alone; all others are corrected for how
    many they are. Trainings of one seed are pairs, for they begin with the same weights; where one loss has more seeds
    than the other, they are not.
    """
    (model, _), *_ = groups
    pairs = {key: (runs, groups[key[0], "triplet"]) for key, runs in groups.items() if key[1] != "triplet"}
    first = {(model, "polynomial"): compare(*pairs.pop((model, "polynomial")))}
    return first | compare_all(pairs, paired=None)


def report(study: StudyRuns) -> Report:
    """The table of all losses and models, with what each of them was given."""
    groups = groups_of(study)
    found = comparisons(groups)
    apart = {key: differences(comparison) for key, comparison in found.items()}
    rows = [
        {f"model ({study.split} split)": model, "loss": loss}
        | {COLUMNS[name].strip(): mean_and_std(runs, name) for name in RECALL_AT_1_AND_RSUM}
        | {"seeds": len(runs)}
        | {f"− triplet, {over}": cell for over, cell in apart.get((model, loss), {}).items()}
        for (model, loss), runs in groups.items()
    ]
    table = pd.DataFrame(rows).fillna("").set_index(list(rows[0])[0])
    (model, _), *_ = groups
    verdict = found[model, "polynomial"].verdict("polynomial", "triplet")
    return Report(f"{study.dataset}: losses tuned alike", table, run_table(study.all_runs), verdict=verdict)


STUDY = Study("evidence", (), plan, report, more=train_the_tuned, seeds=tuple(range(SEEDS)), smoke_seeds=(0, 1))
