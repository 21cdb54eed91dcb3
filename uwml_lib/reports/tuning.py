"""How losses were tuned: the rule in words, what was tried of each, and what was chosen."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from uwml_lib.config import ExperimentConfig, preset
from uwml_lib.evaluation.statistics import summarize
from uwml_lib.runs import Run
from uwml_lib.support import paths
from uwml_lib.support.errors import reading
from uwml_lib.support.files import read_json
from uwml_lib.support.progress import counted

SHORT = {
    "learning_rate": "learning rate", "batch_size": "batch", "warmup_epochs": "warm-up epochs", "lambda_softmax": "λ",
}  # fmt: skip
"""What is tuned of every loss -> its heading."""
RULE = (
    " Each loss was tuned by the same rule: as many trials at first, over the same ranges and those of its own "
    "parameters, and some more where the best value, or what another tuning had chosen, lay at the edge of its "
    "range or beyond, with seeds that are not reported, chosen by rsum on {chosen_by} alone."
)
OFFERS = (
    " As the draws of few trials are luck, each loss was also offered the settings of other losses, then full-length "
    "instead of short trainings, and a step beyond an edge; it kept whichever proved steadiest. A table below lists "
    "every offer and its result."
)


def how_tuned(losses: Mapping[str, Sequence[Run]]) -> str:
    """Say by which rule losses were tuned, and which of them kept the data set's own settings. losses: runs of each."""
    configs = [runs[0].config for runs in losses.values()]
    first, here = configs[0], chosen_here(losses)
    epochs = dict.fromkeys((of.epochs, of.decay_epoch) for of in configs)
    lengths = (f"{counted(n, 'epoch')}, after {decay} of them a tenth of the learning rate" for n, decay in epochs)
    settings, tuning = (_noted(first.dataset, name) for name in ("settings", "tuning"))
    kept = ", ".join(loss for loss in here if settings[loss] in ({}, {"loss_options": {}}))
    given = ", ".join(loss for loss in losses if loss not in here)
    return (
        f"Width {first.embed_size}; {'; or '.join(lengths)}."
        + RULE.format(chosen_by=first.chosen_by) * bool(here)
        + OFFERS * any("offered" in tuning.get(loss, {}) for loss in here)
        + f" The data set's own settings proved the steadiest for: {kept}." * bool(kept)
        + f" Settings that were given, and not chosen here: those of {given}." * bool(given)
    )


def chosen_here(losses: Mapping[str, Sequence[Run]]) -> list[str]:
    """Return the losses whose runs have the settings that `settings.json` beside the runs has of them."""
    configs = {loss: runs[0].config for loss, runs in losses.items()}
    settings = _noted(next(iter(configs.values())).dataset, "settings")
    return [loss for loss, config in configs.items() if loss in settings and _are(settings[loss], config)]


def _are(settings: Mapping[str, Any], config: ExperimentConfig) -> bool:
    """Say whether a run has the settings of its loss; on what these are silent, the data set's, or smaller batches."""
    found, usual = config.to_dict(), preset(config.dataset)
    silent = {name: getattr(usual, name) for name in SHORT if name not in settings}
    if "batch_size" in silent:  # of data that are too small for its own
        silent["batch_size"] = min(silent["batch_size"], config.batch_size)
    return all(found[name] == value for name, value in (silent | {"loss_options": {}, **settings}).items())


def chosen(groups: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """One row for each group of runs: the settings that were chosen for it."""
    rows = []
    for label, (run, *_) in groups.items():
        values = {short: getattr(run.config, name) for name, short in SHORT.items()}
        options = {name: value for name, value in run.config.loss_options.items() if value is not None}
        rows.append({
            "loss": label,
            **{short: "" if value is None else f"{value:.3g}" for short, value in values.items()},
            "epochs": run.config.epochs,
            "of the loss": ", ".join(f"{name} {_short(value)}" for name, value in options.items()),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("loss")


def _short(value: Any) -> str:
    """A loss's option in a few letters; `settings.json` has it to the last digit."""
    if isinstance(value, list):
        return " ".join(map(_short, value))
    return f"{value:.2g}" if isinstance(value, float) else json.dumps(value)


def _noted(dataset: str, name: str = "tuning") -> dict[str, dict[str, Any]]:
    """What `tuning.json`, or `settings.json`, beside the runs says of each loss; nothing where settings were given."""
    path = paths.RUNS / dataset / f"{name}.json"
    return read_json(path) if path.exists() else {}


def tried(dataset: str, losses: Sequence[str]) -> dict[str, pd.DataFrame]:
    """What was tried for each loss, and what it was offered; nothing where settings were given."""
    with reading(paths.RUNS / dataset / "tuning.json", "what was tried for each loss"):
        noted = {loss: of for loss, of in _noted(dataset).items() if loss in losses}
        rows = [_tried_of(loss, of) for loss, of in noted.items()]
        offered = [row for loss, of in noted.items() for row in _offered_to(loss, of)]
    titles = {"What was tried": rows, "What was offered, and taken": offered}
    return {title: pd.DataFrame(of).fillna("").set_index("loss") for title, of in titles.items() if of}


def _offered_to(loss: str, of: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One row for each setting that a loss could take, its own first, with the rsum of every training of it."""
    for offer in of.get("offered", ()):
        rsums, step = [*offer["rsums"].values()], offer.get("step", {})
        beyond = (f"{SHORT.get(name, name.removeprefix('loss.'))} {value:.3g}" for name, value in step.items())
        yield {
            "loss": loss, "settings of": ", ".join((offer["whose"] or "its own trials", *beyond)),
            "epochs": offer["epochs"],
            f"rsum on {of['chosen_by']}, seed by seed": " ".join(f"{rsum:.1f}" for rsum in rsums),
            "worst": f"{min(rsums):.1f}",
            "taken": "yes" if (offer["whose"], offer["rsums"]) == (of["taken_from"], of["rsums"]) else "",
        }  # fmt: skip


def _tried_of(loss: str, of: Mapping[str, Any]) -> dict[str, Any]:
    ranges = {name: _range(choice) for name, choice in of["space"].items()}
    own = [f"{name.removeprefix('loss.')} {said}" for name, said in ranges.items() if name.startswith("loss.")]
    return {
        "loss": loss, "trials (pruned, failed)": f"{of['trials']} ({of['pruned']}, {of['failed']})",
        "with further seeds": of["contenders"],
        f"rsum on {of['chosen_by']}": summarize([*of["rsums"].values()]).mean_and_std,
        **{SHORT.get(name, name): said for name, said in ranges.items() if not name.startswith("loss.")},
        "of the loss": ", ".join(own),
        "at an edge, nothing tried beyond": ", ".join(of["at_edge"]),
    }  # fmt: skip


def _range(choice: Any) -> str:
    if isinstance(choice, Mapping):
        return f"{choice['low']:g} to {choice['high']:g}"
    return " ".join(f"{value:g}" for value in choice)
