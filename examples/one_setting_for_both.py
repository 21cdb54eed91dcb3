"""Choose the settings of `scenes` by a rule that favours neither loss: the better the worse of the two, the better.

Optuna draws settings. With each of them both losses are trained four epochs, with seeds that no study reports, and the
lower of their mean dev rsums is what it is worth. Three seeds do not show that one training in five fails, so the three
best settings are trained in full with five further seeds, and the one whose worst run is best becomes the preset.
`python examples/one_setting_for_both.py` prints the table that lies beside this file. It takes an hour on two cores.
"""

import argparse
from dataclasses import replace
from typing import Any

import optuna
import pandas as pd

from uwml_lib.config import ExperimentConfig, preset
from uwml_lib.datasets import prepare_data
from uwml_lib.evaluation import summarize
from uwml_lib.reports.report import table_markdown
from uwml_lib.studies.side_by_side import train_all

LOSSES = ("triplet", "polynomial")
SEEDS, TRIALS, EPOCHS = (1000, 1001, 1002), 16, 4
IN_FULL, FURTHER_SEEDS = 3, (1003, 1004, 1005, 1006, 1007)
"""So many of the best settings are trained in full, with these seeds."""
WORST = "worst in full"
SPACE: dict[str, list[Any]] = {
    "embed_size": [64, 128],
    "batch_size": [32, 64],
    "learning_rate": [1e-3, 2e-3, 4e-3, 8e-3],
    "lambda_softmax": [4.0, 10.0, 20.0],
    "warmup_epochs": [1, 2],
}
BEYOND: tuple[dict[str, Any], ...] = ({"lambda_softmax": 30.0}, {"learning_rate": 1.6e-2})
"""What is tried of the best setting besides, as it lies at these edges of what was drawn."""


def rsums(config: ExperimentConfig, values: dict[str, Any], seeds: tuple[int, ...]) -> dict[str, list[float]]:
    """Train both losses with a setting and every seed; loss -> dev rsums."""
    configs = [replace(config, **values, loss=loss, seed=seed) for loss in LOSSES for seed in seeds]
    found = [run.results["dev_rsum"] for run in train_all(configs)]
    return {loss: found[place * len(seeds) :][: len(seeds)] for place, loss in enumerate(LOSSES)}


def main(
    dataset: str = "scenes",
    trials: int = TRIALS,
    seeds: tuple[int, ...] = SEEDS,
    epochs: int = EPOCHS,
    further: tuple[int, ...] = FURTHER_SEEDS,
) -> str:
    """Try settings, print all of them from the best to the worst, and return that table as Markdown."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    full = preset(dataset)
    short = replace(full, epochs=epochs, decay_epoch=max(1, epochs - 1))
    prepare_data(short)
    tried: dict[tuple[Any, ...], tuple[float, dict[str, Any]]] = {}

    def worse(values: dict[str, Any]) -> float:
        found = {loss: summarize(of) for loss, of in rsums(short, values, seeds).items()}
        worth = min(of.mean for of in found.values())
        told = {f"{loss}, dev rsum": of.mean_and_std for loss, of in found.items()}
        tried[tuple(values.values())] = worth, {**values, **told, "the worse": f"{worth:.1f}"}
        return worth

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=8))
    study.optimize(lambda trial: worse({x: trial.suggest_categorical(x, of) for x, of in SPACE.items()}), trials)
    for changes in BEYOND:
        worse(study.best_params | changes)
    rows = [row for _, row in sorted(tried.values(), key=lambda worth_and_row: worth_and_row[0], reverse=True)]
    for row in rows[:IN_FULL]:
        found = rsums(full, {name: row[name] for name in SPACE}, further)
        row.update({f"{loss}, in full": f"{min(of):.1f} to {max(of):.1f}" for loss, of in found.items()})
        row[WORST] = f"{min(map(min, found.values())):.1f}"
    rows[:IN_FULL] = sorted(rows[:IN_FULL], key=lambda row: float(row[WORST]), reverse=True)
    printed = table_markdown(pd.DataFrame(rows).fillna(""), index=False, floatfmt="g")
    print(printed)
    return printed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=TRIALS)
    main(trials=parser.parse_args().trials)
