"""All losses tuned alike: for each as many trials, over the same ranges and those of its own parameters.

A trial trains a few epochs with a seed that no reported run has; the images that choose the best epoch judge it, never
those that are reported. A range is widened where its edge is chosen, or where another tuning chose what lies there or
beyond: twice at most, with some more trials each time. The data set's own setting is tried, too. What is then taken
of all that is known of them, and of each other's, `offers` says.
"""

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import load_split
from uwml_lib.reports.tuned_losses import FITTED
from uwml_lib.reports.tuning import ANOTHER
from uwml_lib.runs import Run, dev_batches
from uwml_lib.studies.committed import INSTEAD
from uwml_lib.studies.offers import MANY, PILOT, SEED, Candidate, as_settings, as_values, steadiest, take_over
from uwml_lib.studies.ranges import EPOCHS, edges, ends_of, space_of, widened
from uwml_lib.studies.side_by_side import run_folders
from uwml_lib.studies.study import Request
from uwml_lib.studies.trying import check_sweep
from uwml_lib.studies.tuned import Tuned, of_loss, read_settings
from uwml_lib.studies.tuning import Sweep, run_trials
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import read_json, write_json
from uwml_lib.weighting import from_scores, positives_and_hardest_negatives

TRIALS = 12
WIDENINGS, MORE_TRIALS = 2, 4
FIRST = ("triplet", "polynomial")
"""The losses that are tuned first, whose settings all others are offered."""
COEFFICIENTS = "coefficients.json"


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
    whole = request.base.epochs
    open_to = [loss for loss in asked if tuning[loss].get("whole") != whole]
    if open_to and not request.smoke and (captions := len(load_split(request.base, "train"))) > MANY:
        chosen = settings | request.tuned
        own = chosen | {loss: of["own"] for loss, of in tuning.items() if "own" in of and loss not in request.tuned}
        earlier = PILOT.get(request.base.dataset, {})
        offered = {f"{ANOTHER} {loss}": {**of, "loss": loss} for loss, (of, _) in earlier.items()}
        offered |= {loss: {"loss": loss, **own[loss]} for loss in dict.fromkeys((*FIRST, *asked)) if loss in own}
        for loss in open_to:
            offers = {whose: of for whose, of in offered.items() if whose != loss}
            base = trials_base(request, loss, chosen)
            note(loss, *take_over(request, loss, base, own[loss], offers, tuning[loss], captions))
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


def _tune(request: Request, name: str, base: ExperimentConfig, terms: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tune one loss; return its settings, and what was tried. terms: name what all trials have alike."""
    trials, widenings = (1, 0) if request.smoke else (TRIALS, WIDENINGS)
    first = f"alike-{name}-{terms.rpartition('-')[2]}"
    keep = request.committed.add if request.committed else None  # goes to other processes, to which a request cannot
    captions, space = len(load_split(base, "train")), dict(space_of(base))
    space["batch_size"] = [size for size in space["batch_size"] if size <= captions] or [base.batch_size]
    ends, pilots = ends_of(captions), (as_values(of) for of, _ in PILOT.get(base.dataset, {}).values())
    earlier = [{key: value for key, value in of.items() if key in space} for of in pilots]
    sweep = Sweep(base, space, (SEED,), "tpe", trials, name=first, after_trial=keep)
    for widening in range(widenings + 1):
        check_sweep(sweep, request.say)
        settled = [*run_trials(sweep, request.say, again=False).values()]
        complete = [trial for trial in settled if trial.state == TrialState.COMPLETE]
        expect(complete, sweep.folder, "no trial that went well", "at least one")
        values = sweep.suggest(max(complete, key=lambda trial: trial.value or -math.inf))
        if not (at_edge := edges(sweep.space, values, ends)):
            values = next((x for x in ({**values, **of} for of in earlier) if edges(sweep.space, x, ends)), values)
            at_edge = edges(sweep.space, values, ends)
        if not at_edge or widening == widenings:
            break
        what = "the best trial, or another tuning's choice,"
        request.say(f"{name}: {what} lies at an edge of {', '.join(at_edge)} or beyond, which is widened")
        wider, called = widened(sweep.space, values, ends), f"{first}-wider{widening + 1}"
        sweep = replace(sweep, space=wider, samples=sweep.samples + MORE_TRIALS, name=called, earlier=sweep.name)
    candidates = [Candidate({}), *(Candidate(sweep.suggest(of), {SEED: of.value or 0.0}) for of in complete)]
    best = steadiest(request, sweep, candidates, captions)
    states = [trial.state for trial in settled]
    tried = {
        "terms": terms, "epochs": base.epochs, "chosen_by": base.chosen_by, "space": sweep.space, "trials": len(states),
        "pruned": states.count(TrialState.PRUNED), "failed": states.count(TrialState.FAIL),
        "contenders": sum(len(of.rsums) > 1 for of in candidates), "at_edge": edges(sweep.space, best.values, ends),
        "rsums": best.rsums, "own": (settings := as_settings(name, sweep, best.values)),
    }  # fmt: skip
    return settings, tried


def fitted_coefficients(request: Request, settings: Tuned) -> dict[str, Any]:
    """Return loss options fitted to the held-out scores of the training that was chosen with the released ones."""
    expect("polynomial" in settings, FITTED, "no trials of the polynomial loss", "it to be tuned first")
    chosen_whole = "offered" in _read(request.folder / "tuning.json").get("polynomial", {})
    base = request.base if chosen_whole else trials_base(request, "polynomial", {})
    config = replace(base, **of_loss(settings, "polynomial"), seed=SEED)
    (folder,) = run_folders([config])
    if folder.name not in _read(request.folder / COEFFICIENTS):
        if (folder / "results.json").exists() and not (folder / "checkpoint").exists():
            shutil.rmtree(folder)  # numbers alone, of another machine
        request.train([config])
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
