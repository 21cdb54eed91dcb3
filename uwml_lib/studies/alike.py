"""All losses tuned alike: for each as many trials, over the same ranges and those of its own parameters.

A trial trains a few epochs with a seed that no reported run has; the images that choose the best epoch judge it, never
those that are reported. A range is widened where its edge is chosen, or where an earlier tuning chose what lies there
or beyond: twice at most, with some more trials each time. One seed does not show that a setting fails with others, so
the best are tried with more, and so is the data set's own: the setting whose worst run is the best is chosen. Where a
trial takes minutes they are few, and the draws are luck: there each loss is offered the settings of others besides. And
what is best in a few epochs need not be so in more: there the length of the training is chosen, too.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import load_split
from uwml_lib.models import MODELS
from uwml_lib.reports.tuned_losses import FITTED
from uwml_lib.runs import Run, dev_batches
from uwml_lib.studies.committed import INSTEAD
from uwml_lib.studies.side_by_side import run_folders
from uwml_lib.studies.study import Request
from uwml_lib.studies.trying import Space, check_sweep
from uwml_lib.studies.tuned import Tuned, of_loss, read_settings
from uwml_lib.studies.tuning import Sweep, run_trials
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import read_json, write_json
from uwml_lib.weighting import from_scores, positives_and_hardest_negatives

TRIALS, EPOCHS, SEED = 12, 4, 1000
WIDENINGS, MORE_TRIALS = 2, 4
FURTHER_SEEDS, SEEDS_AT_A_TIME = (1001, 1002, 1003, 1004), 2
"""With which seeds the best settings are tried besides, and how many of them before the next look."""
MANY = 10_000
"""Training captions; with more, a trial takes minutes, no setting is tried with more seeds than at one look, and losses
offer each other theirs."""
PILOT: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "f8k_regions": {
        "triplet": {
            "learning_rate": 1.02039e-3, "batch_size": 64, "warmup_epochs": 0, "lambda_softmax": 16.1056,
            "loss_options": {"margin": 0.842505},
        },
        "polynomial": {
            "learning_rate": 5.25528e-3, "batch_size": 128, "warmup_epochs": 0, "lambda_softmax": 10.8399,
            "loss_options": {"margin": 1.30407},
        },
    },
}  # fmt: skip
"""Data set -> loss -> what an earlier tuning of it chose there: every loss is offered all of these, as far as it has
the parameters. The rule was the same, the draws were others (`reports/reference/f8k_regions/sweeps/alike-*-pilot*`): 16
trials of the triplet loss, in float32, and 20 of the polynomial loss."""
FIRST = ("triplet", "polynomial")
"""The losses that are tuned first, whose settings all others are offered."""
COEFFICIENTS = "coefficients.json"
EDGE = 0.05
"""Share of a range, on its scale, that counts as its edge."""
Ends = Mapping[str, tuple[float, float]]
ENDS: Ends = {"warmup_epochs": (0, EPOCHS), "loss.base": (-1.0, 1.0)}
"""Name -> least and largest value that means anything: where a range ends there, its end is no edge."""
NO_ENDS = (-math.inf, math.inf)


def _log(low: float, high: float) -> dict[str, Any]:
    return {"low": low, "high": high, "log": True}


SHARED: Space = {
    "learning_rate": _log(3e-4, 6e-3), "batch_size": [32, 64, 128], "warmup_epochs": {"low": 0, "high": 2},
    "lambda_softmax": _log(3.0, 30.0),
}  # fmt: skip
"""What is tuned of every loss; the attention's lambda where the model has one."""
MARGIN: Space = {"loss.margin": _log(0.03, 0.5)}
OWN: Mapping[str, Space] = {
    **dict.fromkeys(("triplet", "triplet_all", "triplet_semihard"), MARGIN),
    "triplet_soft": {"loss.scale": _log(0.5, 60.0)},
    **dict.fromkeys(("polynomial", "polynomial_average", "polynomial_public_variant", "polynomial_relative"), MARGIN),
    "infonce": {"loss.temperature": _log(0.01, 0.3)},
    "sigmoid": {"loss.scale": _log(3.0, 60.0), "loss.bias": {"low": -20.0, "high": 0.0}},
    "multi_similarity": {"loss.base": {"low": 0.0, "high": 0.9}, "loss.beta": _log(8.0, 80.0)},
    "circle": {"loss.relaxation": _log(0.1, 0.8), "loss.gamma": _log(8.0, 200.0)},
}
"""Loss -> what is tuned of its own."""


class NoCoefficients(UWMLError):
    """No coefficients fit the scores of a model, as of one that has collapsed: its scores are all equal."""


def train_alike(request: Request, losses: Sequence[str], seeds: Sequence[int], *models: Mapping[str, Any]) -> list[Run]:
    """Tune losses, and train them with the settings that were chosen; models: settings of others than the tuned one."""
    tuned = replace(request, seeds=seeds, tuned=tune_alike(request, losses))
    return tuned.train(tuned.grid(*(models or ({},)), losses=dict.fromkeys(losses, ({},))))


def tune_alike(request: Request, losses: Iterable[str]) -> Tuned:
    """Return the settings of losses: those that were given, those chosen before on the same terms, and else tuned now.

    `settings.json` beside the runs has them, `tuning.json` what was tried for each: ranges, trials, what was chosen.
    The terms are the data and all that the trials have alike; other terms, as of a tiny test, choose anew.
    """
    settings, tuning = (_read(request.folder / f"{name}.json") for name in ("settings", "tuning"))

    def note(loss: str, chosen: dict[str, Any], tried: dict[str, Any]) -> None:
        settings[loss], tuning[loss] = chosen, tried
        for name, content in (("settings", settings), ("tuning", tuning)):  # of a kill between them none is lost
            write_json(path := request.folder / f"{name}.json", content)
            request.keep(path)

    asked = [loss for loss in losses if loss not in request.tuned]
    for loss in asked:
        base = trials_base(request, loss, settings | request.tuned)
        terms = run_folders([base])[0].name
        if loss not in settings or tuning.get(loss, {}).get("terms") != terms:
            if request.committed:
                _check_committed(request.committed.folder, loss, terms)
            note(loss, *_tune(request, loss, base, terms))
    open_to = [loss for loss in asked if "offered" not in tuning[loss]]
    if open_to and not request.smoke and len(load_split(request.base, "train")) > MANY:
        chosen = settings | request.tuned
        own = chosen | {loss: of["own"] for loss, of in tuning.items() if "own" in of and loss not in request.tuned}
        earlier = PILOT.get(request.base.dataset, {})
        offered = {f"an earlier tuning of {loss}": {**of, "loss": loss} for loss, of in earlier.items()}
        offered |= {loss: {"loss": loss, **own[loss]} for loss in dict.fromkeys((*FIRST, *asked)) if loss in own}
        for loss in open_to:
            offers = {whose: of for whose, of in offered.items() if whose != loss}
            base = trials_base(request, loss, chosen)
            note(loss, *_take_over(request, loss, base, own[loss], offers, tuning[loss]))
    if "polynomial" in asked:  # while the weights of the chosen trial are there
        fitted_coefficients(request, settings)
    return {loss: request.tuned.get(loss) or settings[loss] for loss in losses}


def _read(path: Path) -> dict[str, Any]:
    if path.stem == "settings":
        return read_settings(path) if path.exists() else {}
    found = read_json(path) if path.exists() else {}
    needed = ("positive", "negative") if path.name == COEFFICIENTS else ("terms", "trials")
    for name, noted in found.items():
        whole = isinstance(noted, Mapping) and all(key in noted for key in needed)
        expect(whole, f"{path}: {name}", f"{noted!r:.80}", f"an object with {' and '.join(needed)}")
    return found


def _check_committed(folder: Path, loss: str, terms: str) -> None:
    """Raise UWMLError if a loss was tuned on other terms there, for that would be replaced."""
    path = folder / "tuning.json"
    found = _read(path).get(loss, {}).get("terms", terms)
    what = "other data, tokenizer, precision or settings of all trials"
    expect(found == terms, f"{path}: {loss}", f"{found} ({what})", f"{terms}, {INSTEAD.format(folder)}")


def trials_base(request: Request, name: str, settings: Tuned) -> ExperimentConfig:
    """Return what all trials of a loss have alike: few epochs, with the decay at the same share of them."""
    base, epochs = request.base, min(EPOCHS, request.base.epochs)
    decay = max(1, round(base.decay_epoch * epochs / base.epochs))
    loss, options = ("polynomial", fitted_coefficients(request, settings)) if name == FITTED else (name, {})
    return replace(base, loss=loss, loss_options=options, epochs=epochs, decay_epoch=decay)


def space_of(config: ExperimentConfig) -> Space:
    """Return what is tuned of a loss on a model."""
    unused = () if "lambda_softmax" in MODELS[config.model].settings else ("lambda_softmax",)
    return {**{name: choice for name, choice in SHARED.items() if name not in unused}, **OWN[config.loss]}


def ends_of(captions: int) -> Ends:
    """Return `ENDS` for so many training captions: batch sizes end where one twice as large could not be filled."""
    return {**ENDS, "batch_size": (1, captions // 2 + 1)}


def _tune(request: Request, name: str, base: ExperimentConfig, terms: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tune one loss; return its settings, and what was tried. terms: name what all trials have alike."""
    trials, widenings = (1, 0) if request.smoke else (TRIALS, WIDENINGS)
    first = f"alike-{name}-{terms.rpartition('-')[2]}"
    keep = request.committed.add if request.committed else None  # goes to other processes, to which a request cannot
    captions, space = len(load_split(base, "train")), dict(space_of(base))
    space["batch_size"] = [size for size in space["batch_size"] if size <= captions] or [base.batch_size]
    ends, pilots = ends_of(captions), map(_as_values, PILOT.get(base.dataset, {}).values())
    earlier = [{key: value for key, value in of.items() if key in space} for of in pilots]
    sweep = Sweep(base, space, (SEED,), "tpe", trials, name=first, after_trial=keep)
    for widening in range(widenings + 1):
        check_sweep(sweep, request.say)
        settled = [*run_trials(sweep, request.say, again=False).values()]
        complete = [trial for trial in settled if trial.state == TrialState.COMPLETE]
        if not complete:
            raise UWMLError(f"{sweep.folder}: found no trial that went well, expected at least one")
        values = sweep.suggest(max(complete, key=lambda trial: trial.value or -math.inf))
        if not (at_edge := edges(sweep.space, values, ends)):
            values = next((x for x in ({**values, **of} for of in earlier) if edges(sweep.space, x, ends)), values)
            at_edge = edges(sweep.space, values, ends)
        if not at_edge or widening == widenings:
            break
        what = "the best trial, or an earlier tuning's choice,"
        request.say(f"{name}: {what} lies at an edge of {', '.join(at_edge)} or beyond, which is widened")
        wider, called = widened(sweep.space, values, ends), f"{first}-wider{widening + 1}"
        sweep = replace(sweep, space=wider, samples=sweep.samples + MORE_TRIALS, name=called, earlier=sweep.name)
    further = FURTHER_SEEDS[: SEEDS_AT_A_TIME if captions > MANY else None]
    tried_values = [{}, *map(sweep.suggest, complete)]
    known = [{}, *({SEED: trial.value or 0.0} for trial in complete)]
    place = _steadiest(request, sweep, tried_values, known, () if request.smoke else further)
    values, states = tried_values[place], [trial.state for trial in settled]
    tried = {
        "terms": terms, "epochs": base.epochs, "chosen_by": base.chosen_by, "space": sweep.space, "trials": len(states),
        "pruned": states.count(TrialState.PRUNED), "failed": states.count(TrialState.FAIL),
        "contenders": sum(len(rsums) > 1 for rsums in known), "at_edge": edges(sweep.space, values, ends),
        "rsums": known[place], "own": (settings := _as_settings(name, sweep, values)),
    }  # fmt: skip
    return settings, tried


def _take_over(
    request: Request, name: str, base: ExperimentConfig, own: Mapping[str, Any],
    offers: Mapping[str, Mapping[str, Any]], tried: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """Return the settings of a loss, and what was tried, after it was offered others', and whole trainings.

    Of another's it takes what all losses have, and its own parameters as far as both have them; what that leaves open
    is the data set's. Then its own and what it took are tried in trainings as long as the data set's. It is always the
    setting whose worst run is the best. offers: whose they are -> settings, with their loss.
    """
    sweep, values = Sweep(base, space_of(base)), _as_values(own)
    lengths = [{"epochs": of.epochs, "decay_epoch": of.decay_epoch} for of in (base, request.base)]
    candidates = {("", base.epochs): {**values, **lengths[0]}}
    for whose, settings in offers.items():
        unshared = {
            key: of for key, of in values.items() if key.startswith("loss.") and key not in OWN[settings["loss"]]
        }
        theirs = {key: of for key, of in _as_values(settings).items() if key in sweep.space}
        if (offer := {**unshared, **theirs, **lengths[0]}) not in candidates.values():
            candidates[whose, base.epochs] = offer
    rsums = [dict[int, float]() for _ in candidates]
    further = FURTHER_SEEDS[:SEEDS_AT_A_TIME]
    taken_from, _ = [*candidates][_steadiest(request, sweep, [*candidates.values()], rsums, further)]
    if request.base.epochs > base.epochs:
        whole = {whose: {**candidates[whose, base.epochs], **lengths[1]} for whose in ("", taken_from)}
        candidates |= {(whose, request.base.epochs): of for whose, of in whole.items()}
        rsums += [{} for _ in whole]
    place = _steadiest(request, sweep, [*candidates.values()], rsums, further)
    (taken_from, epochs), values = [*candidates.items()][place]
    length = ("epochs", "decay_epoch") if epochs == request.base.epochs else ()
    settings = _as_settings(name, sweep, {key: of for key, of in values.items() if key not in length})
    of_space = {key: of for key, of in values.items() if key in tried["space"]}
    at_edge = edges(tried["space"], of_space, ends_of(len(load_split(base, "train"))))
    offered = [
        {"whose": whose, "epochs": epochs, "rsums": found}
        for (whose, epochs), found in zip(candidates, rsums, strict=True)
    ]
    changed = {"at_edge": at_edge, "rsums": rsums[place], "taken_from": taken_from, "offered": offered}
    return settings, tried | changed


def _as_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `settings.json` says of a loss by the names that a sweep has for it."""
    options = {f"loss.{key}": value for key, value in settings.get("loss_options", {}).items()}
    return {key: value for key, value in settings.items() if key not in ("loss", "loss_options")} | options


def _as_settings(name: str, sweep: Sweep, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `settings.json` says of a loss, or a variant of one, with a setting of its sweep."""
    variant = {"loss": sweep.base.loss} if sweep.base.loss != name else {}
    shared = {key: value for key, value in values.items() if not key.startswith("loss.")}
    return {**variant, **shared, "loss_options": sweep.configs(values)[0].loss_options}


def _steadiest(
    request: Request, sweep: Sweep, settings: Sequence[Mapping[str, Any]], rsums: list[dict[int, float]],
    further: Sequence[int],
) -> int:  # fmt: skip
    """Return the place of the setting whose worst run is the best.

    rsums: of each setting what is known, by seed; what is trained is added. What cannot change the choice is not
    trained: the further seeds are for the setting whose worst run is the best so far.
    """
    seeds = (SEED, *further)
    while True:
        best = max(range(len(settings)), key=lambda place: min(rsums[place].values(), default=math.inf))
        if not (more := seeds[len(rsums[best]) :][:SEEDS_AT_A_TIME]):
            return best
        runs = request.train(replace(sweep, seeds=more).configs(settings[best]))
        rsums[best] |= {run.seed: run.results["dev_rsum"] for run in runs}


def fitted_coefficients(request: Request, settings: Tuned) -> dict[str, Any]:
    """Return loss options fitted to the held-out scores of the chosen trial of the released coefficients."""
    if "polynomial" not in settings:
        raise UWMLError(f"{FITTED}: found no trials of the polynomial loss, expected it to be tuned first")
    config = replace(trials_base(request, "polynomial", {}), **of_loss(settings, "polynomial"), seed=SEED)
    (folder,) = run_folders([config])
    if folder.name not in _read(request.folder / COEFFICIENTS):
        request.train([config])  # on another machine than the trial's its weights are missing
    return coefficients_of(request, folder)


def coefficients_of(request: Request, folder: Path) -> dict[str, Any]:
    """Return loss options fitted to the held-out scores of a run, noted in `coefficients.json` beside the runs."""
    path = request.folder / COEFFICIENTS
    noted = _read(path)
    if folder.name not in noted:
        positives, negatives = positives_and_hardest_negatives(dev_batches(folder, request.base.data_root))
        # To three digits: the last bits differ between machines, and would give the runs another name on each. A
        # positive above what was seen is clamped anyway, so no ceiling is needed.
        try:
            coefficients = from_scores(positives.numpy().round(3), negatives.numpy().round(3))
        except ValueError as error:
            raise NoCoefficients(f"{folder}: no coefficients fit its scores ({error}); has it collapsed?") from error
        rounded = {key: [round(x, 4) for x in values] for key, values in coefficients._asdict().items()}
        noted[folder.name] = {**rounded, "positive_ceiling": None}
        write_json(path, noted)
        request.keep(path)
    return noted[folder.name]


def edges(space: Space, values: Mapping[str, Any], ends: Ends) -> list[str]:
    """Return the names whose value lies at the edge of what was tried, unless nothing lies beyond."""
    return [name for name in values if _side(space[name], values[name], ends.get(name, NO_ENDS))]


def widened(space: Space, values: Mapping[str, Any], ends: Ends) -> Space:
    """Return a space that goes on, by half its width, beyond the edges that were chosen."""
    wider = dict(space)
    for name, choice in space.items():
        least, most = ends.get(name, NO_ENDS)
        side = _side(choice, values[name], (least, most))
        if side and isinstance(choice, Mapping):
            end = "high" if side > 0 else "low"
            if choice.get("log"):
                beyond = choice[end] * (choice["high"] / choice["low"]) ** (side / 2)
                wider[name] = {**choice, end: float(f"{beyond:.3g}")}
            else:
                step = (choice["high"] - choice["low"]) / 2
                beyond = choice[end] + side * (max(1, round(step)) if isinstance(choice[end], int) else step)
                wider[name] = {**choice, end: min(max(beyond, least), most)}
        elif side:
            wider[name] = [*choice, choice[-1] * 2] if side > 0 else [choice[0] // 2, *choice]
    return wider


def _side(choice: Any, value: Any, ends: tuple[float, float]) -> int:
    """Say at which edge of a range, or a list of numbers, a value lies: 1 the upper, -1 the lower, 0 none."""
    log = isinstance(choice, Mapping) and choice.get("log", False)
    low, high = (choice["low"], choice["high"]) if isinstance(choice, Mapping) else (choice[0], choice[-1])
    scale = math.log if log else float
    place = (scale(value) - scale(low)) / (scale(high) - scale(low)) if low < high else 0.5
    least, most = ends
    return int(place >= 1 - EDGE and high < most) - int(place <= EDGE and low > least)
