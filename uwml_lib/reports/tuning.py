"""How losses were tuned: the rule in words, what was tried of each, and what was chosen."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from uwml_lib.config import ExperimentConfig, preset
from uwml_lib.evaluation.statistics import summarize
from uwml_lib.reports import records
from uwml_lib.runs import Run
from uwml_lib.support import paths
from uwml_lib.support.errors import reading
from uwml_lib.support.progress import counted

SHORT = {
    "learning_rate": "learning rate", "batch_size": "batch", "warmup_epochs": "warm-up epochs", "lambda_softmax": "λ",
}  # fmt: skip
"""What is tuned of every loss -> its heading."""
RULE = (
    " Each loss was tuned by the same rule. At first it got as many trials as any other, over the same ranges and "
    "those of its own parameters. Where the best trial{or_another} lay at the edge of a range or beyond, the range was "
    "widened and some more trials were made, twice at most. Trials have a seed that is not reported. The best settings "
    "were tried with further such seeds, and the one whose worst seed had the highest rsum on {chosen_by} was kept, "
    "which need not be that of the best trial."
)
OR_ANOTHER = ", or what another tuning had chosen,"
OFFERS = (
    " With few trials the best of them depends on chance, so each loss was also offered the settings of other losses, "
    "then full-length instead of short trainings, a step beyond an edge, and two more epochs where the last was the "
    "best with every seed; the worst seed decided again. Tables below list every offer and its result."
)
PRESET: Sequence[Mapping[str, Any]] = ({}, {"loss_options": {}})
"""What `settings.json` says of a loss that kept the data set's own settings."""
ANOTHER = "another tuning of"
Another = Mapping[str, tuple[Mapping[str, Any], str]]
"""Loss -> what another tuning of it chose, and the budget of that, such as "16 trials in float32"."""


def how_tuned(losses: Mapping[str, Sequence[Run]], another: Another) -> str:
    """Say by which rule losses were tuned, and which of them kept the data set's own settings. losses: runs of each."""
    runs = [of[0] for of in losses.values()]
    first, here = runs[0].config, chosen_here(losses)
    lengths: dict[str, list[str]] = {}
    for loss, config in zip(losses, [of.config for of in runs], strict=True):
        length = f"{counted(config.epochs, 'epoch')}, after {config.decay_epoch} of them a tenth of the learning rate"
        lengths.setdefault(length, []).append(loss)
    told = [f"{length} ({', '.join(of)})" if len(lengths) > 1 else length for length, of in lengths.items()]
    precision = {"no": "float32"}.get(first.mixed_precision, first.mixed_precision)
    again = " and of ".join(f"{loss} ({budget})" for loss, (_, budget) in another.items() if loss in here)
    settings, tuning = (records.noted(first.dataset, name) for name in ("settings", "tuning"))
    kept = ", ".join(loss for loss in here if settings[loss] in PRESET)
    given = ", ".join(loss for loss in losses if loss not in here)
    return (
        f"{runs[0].model}; width {first.embed_size}; trained in {precision}; {'; '.join(told)}."
        + RULE.format(chosen_by=first.chosen_by, or_another=OR_ANOTHER * bool(again)) * bool(here)
        + OFFERS * any("offered" in tuning.get(loss, {}) for loss in here)
        + f" Offered besides was what another tuning chose, of {again}: trials that the other losses did not have."
        * bool(again)
        + _apart(tuning, another)
        + f" The data set's own settings were kept by: {kept}." * bool(kept)
        + f" Settings that were given, and not chosen here: those of {given}." * bool(given)
    )


def _apart(tuning: Mapping[str, Any], another: Another) -> str:
    """Say how far apart two tunings of one loss end, which no interval contains; "" where no loss has two."""
    said = []
    for loss in (loss for loss in another if "offered" in tuning.get(loss, {})):
        short = [of for of in tuning[loss]["offered"] if of["epochs"] == tuning[loss]["epochs"]]
        worst = {of["whose"]: f"{min(of['rsums'].values()):.1f}" for of in short}
        if (other := f"{ANOTHER} {loss}") in worst:
            said.append(f"{worst['']} and {worst[other]} with {loss}")
    return (
        f" Two tunings of one loss by the same rule are apart, too: their worst seeds reach {', '.join(said)} on the "
        "images that chose. The intervals below hold for the settings that were chosen, and do not contain this."
    ) * bool(said)


def chosen_here(losses: Mapping[str, Sequence[Run]]) -> list[str]:
    """Return the losses whose runs have the settings that `settings.json` beside the runs has of them."""
    configs = {loss: runs[0].config for loss, runs in losses.items()}
    settings = records.noted(next(iter(configs.values())).dataset, "settings")
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
        config = run.config
        rows.append({"loss": label, "epochs": config.epochs, **_cells(config.to_dict())})
    return pd.DataFrame(rows).set_index("loss")


def _cells(settings: Mapping[str, Any]) -> dict[str, str]:
    """What is tuned of every loss, and what of its own, as cells of a table."""
    options = {name: value for name, value in settings["loss_options"].items() if value is not None}
    values = {short: settings[name] for name, short in SHORT.items()}
    return {
        **{short: "" if value is None else f"{value:.3g}" for short, value in values.items()},
        "of the loss": ", ".join(f"{name} {_short(value)}" for name, value in options.items()),
    }


def _short(value: Any) -> str:
    """A loss's option in a few letters; `settings.json` has it to the last digit."""
    if isinstance(value, list):
        return " ".join(map(_short, value))
    return f"{value:.2g}" if isinstance(value, float) else json.dumps(value)


def tried(dataset: str, losses: Sequence[str], another: Another) -> dict[str, pd.DataFrame]:
    """What was tried for each loss, and what it was offered; nothing where settings were given."""
    with reading(paths.RUNS / dataset / "tuning.json", "what was tried for each loss"):
        noted = {loss: of for loss, of in records.noted(dataset, "tuning").items() if loss in losses}
        rows = [_tried_of(loss, of) for loss, of in noted.items()]
        taken = [row for loss in noted for row in _offered_to(loss, noted)]
        offered = _offers(dataset, {loss: of for loss, of in noted.items() if "offered" in of}, another)
    titles = {"What was tried": rows, "What was offered, and taken": taken, "The settings that were offered": offered}
    found = {title: pd.DataFrame(of).fillna("") for title, of in titles.items() if of}
    return {title: table.set_index(str(table.columns[0])) for title, table in found.items()}


def _offers(dataset: str, noted: Mapping[str, Mapping[str, Any]], another: Another) -> list[dict[str, str]]:
    """One row for each source of settings that losses were offered."""
    offers = {f"{loss}'s own trials": of["own"] for loss, of in noted.items() if of.get("own", {}) not in PRESET}
    offers |= {f"{ANOTHER} {loss}": settings for loss, (settings, _) in another.items() if loss in noted}
    usual = {**preset(dataset).to_dict(), "loss_options": {}}
    every = {"the preset": {}, **offers} if noted else {}
    return [{"settings of": whose, **_cells({**usual, **of})} for whose, of in every.items()]


def _whose(whose: str, loss: str, noted: Mapping[str, Mapping[str, Any]]) -> str:
    """Say where a setting comes from that a loss was offered; whose: as noted."""
    if whose.startswith(ANOTHER):
        return whose
    if noted.get(whose or loss, {}).get("own") in PRESET:
        return f"the preset, as kept by {whose}" if whose else "the preset"
    return f"{whose}'s own trials" if whose else "its own trials"


def _offered_to(loss: str, noted: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row for each setting that a loss could take, its own first, with the rsum of every training of it."""
    of = noted[loss]
    for offer in of.get("offered", ()):
        rsums, step = [*offer["rsums"].values()], offer.get("step", {})
        beyond = (f"{SHORT.get(name, name.removeprefix('loss.'))} {value:.3g}" for name, value in step.items())
        yield {
            "loss": loss, "settings of": ", ".join((_whose(offer["whose"], loss, noted), *beyond)),
            "epochs": offer["epochs"],
            f"rsum on {of['chosen_by']}, seed by seed": " ".join(f"{rsum:.1f}" for rsum in rsums),
            "worst": f"{min(rsums):.1f}",
            "taken": "yes" if (offer["whose"], offer["rsums"]) == (of["taken_from"], of["rsums"]) else "",
        }  # fmt: skip


def _tried_of(loss: str, of: Mapping[str, Any]) -> dict[str, Any]:
    ranges = {name: _range(choice) for name, choice in of["space"].items()}
    own = [f"{name.removeprefix('loss.')} {said}" for name, said in ranges.items() if name.startswith("loss.")]
    best = of["offered"][0]["rsums"] if of.get("offered") else of["rsums"]
    return {
        "loss": loss, "trials (pruned, failed)": f"{of['trials']} ({of['pruned']}, {of['failed']})",
        "with further seeds": of["contenders"],
        f"rsum of its own best on {of['chosen_by']}": summarize([*best.values()]).mean_and_std,
        **{SHORT.get(name, name): said for name, said in ranges.items() if not name.startswith("loss.")},
        "of the loss": ", ".join(own),
        "at an edge, nothing tried beyond": ", ".join(of["at_edge"]),
    }  # fmt: skip


def _range(choice: Any) -> str:
    if isinstance(choice, Mapping):
        return f"{choice['low']:g} to {choice['high']:g}"
    return " ".join(f"{value:g}" for value in choice)
