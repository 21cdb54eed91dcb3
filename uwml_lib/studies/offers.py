"""Which setting is taken: of those that are known, the one whose worst run is the best.

One seed does not show that a setting fails with others, so the best are tried with more. Where a trial takes minutes,
trials are few and the draws are luck: there each loss is offered the settings of others besides; as what is best in a
few epochs need not be so in more, the length of the training is chosen, too; and where what was taken lies at the edge
of its range, a step beyond is tried.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from uwml_lib.config import ExperimentConfig
from uwml_lib.reports.tuning import Another
from uwml_lib.studies.ranges import OWN, beyond, edges, ends_of, space_of
from uwml_lib.studies.study import Request
from uwml_lib.studies.tuning import Sweep
from uwml_lib.training.trainer import Diverged

SEED = 1000
"""Of all trials."""
FURTHER_SEEDS, SEEDS_AT_A_TIME = (1001, 1002, 1003, 1004), 2
"""With which seeds the best settings are tried besides, and how many of them before the next look."""
MANY = 10_000
"""Training captions; with more, a trial takes minutes, no setting is tried with more seeds than at one look, and losses
offer each other theirs."""
STEPS, LONGER = 2, 2
"""Steps beyond an edge, at most; epochs that are added, at the lower learning rate, where the last was the best."""
PILOT: Mapping[str, Another] = {
    "f8k_regions": {
        "triplet": ({
            "learning_rate": 1.02039e-3, "batch_size": 64, "warmup_epochs": 0, "lambda_softmax": 16.1056,
            "loss_options": {"margin": 0.842505},
        }, "16 trials in float32"),
        "polynomial": ({
            "learning_rate": 5.25528e-3, "batch_size": 128, "warmup_epochs": 0, "lambda_softmax": 10.8399,
            "loss_options": {"margin": 1.30407},
        }, "20 trials in bf16"),
    },
}  # fmt: skip
"""Data set -> what another tuning of losses chose there: every loss is offered all of these, as far as it has the
parameters. The rule was the same, the draws were others (`reports/reference/f8k_regions/sweeps/alike-*-pilot*`)."""


@dataclass(eq=False)
class Candidate:
    """A setting by the names that a sweep has for it, and the rsum of what was trained with it, by seed.

    whose: the loss that offered it; step: what is beyond an edge in it.
    """

    values: Mapping[str, Any]
    rsums: dict[int, float] = field(default_factory=dict)
    whose: str = ""
    step: Mapping[str, Any] = field(default_factory=dict)


def steadiest(request: Request, sweep: Sweep, candidates: Sequence[Candidate], captions: int) -> Candidate:
    """Return the candidate whose worst run is the best.

    What cannot change the choice is not trained: the further seeds are for the setting whose worst run is the best so
    far. captions: of train.
    """
    seeds = (SEED, *(() if request.smoke else FURTHER_SEEDS[: SEEDS_AT_A_TIME if captions > MANY else None]))
    while True:
        best = max(candidates, key=lambda of: min(of.rsums.values(), default=math.inf))
        if not (more := seeds[len(best.rsums) :][:SEEDS_AT_A_TIME]):
            return best
        try:
            runs = request.train(replace(sweep, seeds=more).configs(best.values))
            best.rsums |= {run.seed: run.results["dev_rsum"] for run in runs}
        except Diverged as error:
            request.say(f"counts as an rsum of 0: {error}")
            best.rsums |= dict.fromkeys(more, 0.0)


def take_over(
    request: Request, name: str, base: ExperimentConfig, own: Mapping[str, Any],
    offers: Mapping[str, Mapping[str, Any]], tried: Mapping[str, Any], captions: int,
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """Return the settings of a loss, and what was tried, after it was offered others', whole trainings, and steps.

    Of another's it takes what all losses have, and its own parameters as far as both have them; what that leaves open
    is the data set's. Then its own and what it took are tried in trainings as long as the data set's. offers: whose
    they are -> settings, with their loss. captions: of train. Steps lead beyond an edge, and to more epochs where the
    last was the best.
    """
    sweep, values, ends = Sweep(base, space_of(base)), as_values(own), ends_of(captions)
    short, whole = ({"epochs": of.epochs, "decay_epoch": of.decay_epoch} for of in (base, request.base))
    candidates, space = [Candidate({**values, **short})], tried["space"]

    def offer(whose: str, values: Mapping[str, Any], **step: Any) -> None:
        if all(values != of.values for of in candidates):
            candidates.append(Candidate(values, whose=whose, step=step))

    def placed(of: Candidate) -> dict[str, Any]:
        return {key: value for key in space if (value := of.values.get(key, getattr(base, key, None))) is not None}

    def limits(of: Candidate) -> dict[str, Any]:
        found = {key: beyond(space, key, placed(of)[key], ends) for key in edges(space, placed(of), ends)}
        return found | ({"epochs": of.values["epochs"] + LONGER} if rises(request, sweep, of) else {})

    for whose, settings in offers.items():
        other = OWN[settings["loss"]]
        unshared = {key: of for key, of in values.items() if key.startswith("loss.") and key not in other}
        theirs = {key: of for key, of in as_values(settings).items() if key in sweep.space}
        offer(whose, {**unshared, **theirs, **short})
    for of in (candidates[0], steadiest(request, sweep, candidates, captions)):
        offer(of.whose, {**of.values, **whole})
    taken = steadiest(request, sweep, candidates, captions)
    for _ in range(STEPS):
        for key, value in limits(taken).items():
            step = {**taken.step, key: value}
            offer(taken.whose, {**taken.values, **step}, **step)
        before, taken = taken, steadiest(request, sweep, candidates, captions)
        if taken is before:
            break
    changed = {
        "at_edge": [] if taken is before else [*limits(taken)], "rsums": taken.rsums,
        "taken_from": taken.whose, "whole": request.base.epochs, "offered": [
            {"whose": of.whose, "epochs": of.values["epochs"], "step": of.step, "rsums": of.rsums} for of in candidates
        ],
    }  # fmt: skip
    usual = whole if taken.values["epochs"] == request.base.epochs else {}
    settings = as_settings(name, sweep, {key: of for key, of in taken.values.items() if key not in usual})
    return settings, {**tried, **changed}


def rises(request: Request, sweep: Sweep, of: Candidate) -> bool:
    """Say whether the last epoch was the best with every seed, so that more of them might be better."""
    if not all(of.rsums.values()):  # one diverged
        return False
    runs = request.train(replace(sweep, seeds=tuple(of.rsums)).configs(of.values))
    return all(run.results["best_epoch"] == run.config.epochs for run in runs)


def as_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `settings.json` says of a loss by the names that a sweep has for it."""
    options = {f"loss.{key}": value for key, value in settings.get("loss_options", {}).items()}
    return {key: value for key, value in settings.items() if key not in ("loss", "loss_options")} | options


def as_settings(name: str, sweep: Sweep, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `settings.json` says of a loss, or a variant of one, with a setting of its sweep."""
    variant = {"loss": sweep.base.loss} if sweep.base.loss != name else {}
    shared = {key: value for key, value in values.items() if not key.startswith("loss.")}
    return {**variant, **shared, "loss_options": sweep.configs(values)[0].loss_options}
