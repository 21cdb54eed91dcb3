"""`make evidence`: which loss is better on one's photographs, tuned alike and with seeds enough to decide.

Fixed in advance: the losses, what is tuned of each and how (`alike`), the seeds, and when there are more of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from uwml_lib.evaluation.statistics import compare
from uwml_lib.reports.tuned_losses import FITTED, tuned_losses
from uwml_lib.runs import Run, StudyRuns
from uwml_lib.studies.alike import tune_alike
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


STUDY = Study("evidence", (), plan, tuned_losses, more=train_the_tuned, seeds=tuple(range(SEEDS)), smoke_seeds=(0, 1))
