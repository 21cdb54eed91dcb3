"""How losses were tuned: the rule in words, what was tried of each, and what was chosen."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from uwml_lib.config import preset
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
OFFERS = (
    " As the draws of few trials are luck, each loss was offered the settings of others besides, those of the triplet "
    "and the polynomial loss and of an earlier tuning, and took those that proved steadier than its own. Ranges that "
    "did not hold what that tuning had chosen were widened, too."
)


def how_tuned(losses: Iterable[Sequence[Run]]) -> str:
    """Say by which rule losses were tuned, and which of them kept the data set's own settings. losses: runs of each."""
    configs = [runs[0].config for runs in losses]
    config, usual = configs[0], preset(configs[0].dataset)
    kept = ", ".join(
        of.loss for of in configs
        if not of.loss_options and all(getattr(of, name) == getattr(usual, name) for name in SHORT)
    )  # fmt: skip
    return (
        f"Width {config.embed_size}; {counted(config.epochs, 'epoch')}, after {config.decay_epoch} of them a tenth of "
        "the learning rate. Each loss was tuned by the same rule: as many trials at first, over the same ranges and "
        "those of its own parameters, and some more where a chosen value lay at the edge of its range, with seeds that "
        f"are not reported, chosen by rsum on {config.chosen_by} alone."
        + OFFERS * any("taken_from" in of for of in _noted(config.dataset).values())
        + f" The data set's own settings proved the steadiest for: {kept}." * bool(kept)
    )


def chosen(groups: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """One row for each group of runs: the settings that were chosen for it."""
    rows = []
    for label, (run, *_) in groups.items():
        values = {short: getattr(run.config, name) for name, short in SHORT.items()}
        options = {name: value for name, value in run.config.loss_options.items() if value is not None}
        rows.append({
            "loss": label,
            **{short: "" if value is None else f"{value:.3g}" for short, value in values.items()},
            "of the loss": ", ".join(f"{name} {_short(value)}" for name, value in options.items()),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("loss")


def _short(value: Any) -> str:
    """A loss's option in a few letters; `settings.json` has it to the last digit."""
    if isinstance(value, list):
        return " ".join(map(_short, value))
    return f"{value:.2g}" if isinstance(value, float) else json.dumps(value)


def _noted(dataset: str) -> dict[str, dict[str, Any]]:
    """What `tuning.json` beside the runs says of each loss; nothing where settings were given."""
    path = paths.RUNS / dataset / "tuning.json"
    return read_json(path) if path.exists() else {}


def tried(dataset: str) -> dict[str, pd.DataFrame]:
    """What was tried for each loss; nothing where settings were given."""
    with reading(paths.RUNS / dataset / "tuning.json", "what was tried for each loss"):
        rows = [_tried_of(loss, of) for loss, of in _noted(dataset).items()]
    return {"What was tried": pd.DataFrame(rows).fillna("").set_index("loss")} if rows else {}


def _tried_of(loss: str, of: Mapping[str, Any]) -> dict[str, Any]:
    ranges = {name: _range(choice) for name, choice in of["space"].items()}
    own = [f"{name.removeprefix('loss.')} {said}" for name, said in ranges.items() if name.startswith("loss.")]
    return {
        "loss": loss, "trials (pruned, failed)": f"{of['trials']} ({of['pruned']}, {of['failed']})",
        "with further seeds": of["contenders"],
        f"rsum on {of['chosen_by']}": summarize([*of["rsums"].values()]).mean_and_std,
        **{SHORT.get(name, name): said for name, said in ranges.items() if not name.startswith("loss.")},
        "of the loss": ", ".join(own),
        "at an edge": ", ".join(of["at_edge"]),
        **({"taken over from": of["taken_from"]} if "taken_from" in of else {}),
    }  # fmt: skip


def _range(choice: Any) -> str:
    if isinstance(choice, Mapping):
        return f"{choice['low']:g} to {choice['high']:g}"
    return " ".join(f"{value:g}" for value in choice)
