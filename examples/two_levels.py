"""What decides at which level the scores of a loss settle, on `scenes`: pull and push, or the accident of a start.

A loss of the gap between positive and negative alone, as the triplet loss, does not change if all scores move together,
so nothing ties them to a level. Short trainings with several seeds, each changing one thing of the preset, show how
often the scores go down instead of up, and after how many steps that is decided. Then both losses are trained in full
with what made a difference: SCAN's normalisation of the similarities, `clipped_l2norm`, or another.
`python examples/two_levels.py` prints two tables, those of two_levels.md; it takes half an hour on two cores.

What was found: the level is the accident of the first steps. No rate, lambda, batch or width does away with it; a
softmax, or no normalisation, does. Then the triplet loss's seeds agree, but none reaches what the higher level of
SCAN's does. With a softmax scores lie where the released coefficients do nothing (0.28 to 0.32 in the first table), and
the polynomial loss's seeds scatter widely.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from uwml_lib.config import preset
from uwml_lib.datasets import prepare_data
from uwml_lib.evaluation import summarize
from uwml_lib.reports.report import table_markdown
from uwml_lib.runs import Run
from uwml_lib.studies.side_by_side import train_all

SEEDS = range(8)
CHANGES: dict[str, dict[str, Any]] = {
    "triplet loss, the preset": {},
    "λ = 4": {"lambda_softmax": 4.0},
    "λ = 10": {"lambda_softmax": 10.0},
    "learning rate 1e-3": {"learning_rate": 1e-3},
    "learning rate 8e-3": {"learning_rate": 8e-3},
    "batches of 128": {"batch_size": 128},
    "the mean of a batch": {"loss_options": {"reduction": "mean"}},
    "no warm-up": {"warmup_epochs": 0},
    "width 256": {"embed_size": 256},
    "normalisation without LeakyReLU": {"normalisation": "l2norm"},
    "a softmax as normalisation": {"normalisation": "softmax"},
    "no normalisation": {"normalisation": "no_norm"},
    "words attend to regions": {"direction": "t2i", "lambda_softmax": None},
    "InfoNCE": {"loss": "infonce"},
    "polynomial loss": {"loss": "polynomial"},
}
"""What is changed of the preset with the triplet loss -> settings."""
IN_FULL: dict[str, dict[str, Any]] = {
    "triplet loss": {},
    "triplet loss, the mean of a batch, which the clip leaves alone": {"loss_options": {"reduction": "mean"}},
    "triplet loss, softmax as normalisation": {"normalisation": "softmax"},
    "triplet loss, no normalisation": {"normalisation": "no_norm"},
    "polynomial loss": {"loss": "polynomial"},
    "polynomial loss, softmax as normalisation": {"loss": "polynomial", "normalisation": "softmax"},
    "polynomial loss, no normalisation": {"loss": "polynomial", "normalisation": "no_norm"},
}
"""What is trained in full -> settings."""


def main(
    dataset: str = "scenes",
    seeds: Sequence[int] = SEEDS,
    changes: Sequence[str] = tuple(CHANGES),
    in_full: Sequence[int] = range(5),
) -> str:
    """Print where scores go in one epoch, and what full trainings reach; return both tables as Markdown.

    seeds, in_full: those of the short and of the full trainings.
    """
    prepare_data(preset(dataset))
    printed = "\n\n".join(
        table_markdown(table, index=False) for table in (short(dataset, seeds, changes), full(dataset, in_full))
    )
    print(printed)
    return printed


def short(dataset: str, seeds: Sequence[int], changes: Sequence[str]) -> pd.DataFrame:
    """One row for each change of the preset: how many seeds go down in one epoch, and how far."""
    base = {"loss": "triplet", "epochs": 1, "decay_epoch": 1, "warmup_epochs": 1, "log_every": 5}
    rows = []
    for name, runs in trained(dataset, base, {name: CHANGES[name] for name in changes}, seeds).items():
        levels, decided = zip(*map(level, runs), strict=True)
        low, high = ([mean for mean in levels if (mean < 0) == below] for below in (True, False))
        rows.append({
            "changed": name, "seeds that go down": f"{len(low)} of {len(levels)}",
            "their positives": _range(low), "positives of the others": _range(high),
            "decided after at most": f"{max(decided)} steps",
        })  # fmt: skip
    return pd.DataFrame(rows)


def full(dataset: str, seeds: Sequence[int]) -> pd.DataFrame:
    """One row for each of `IN_FULL`: the rsum it reaches, and how many seeds end below zero."""
    rows = []
    for name, runs in trained(dataset, {"loss": "triplet"}, IN_FULL, seeds).items():
        rsums = [run.results["dev_rsum"] for run in runs]
        rows.append({
            "trained in full": name, "dev rsum": summarize(rsums).mean_and_std,
            "lowest to highest": f"{min(rsums):.1f} to {max(rsums):.1f}",
            "seeds that end below 0": f"{sum(run.last_positive_score < 0 for run in runs)} of {len(runs)}",
        })  # fmt: skip
    return pd.DataFrame(rows)


def trained(
    dataset: str, base: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]
) -> dict[str, list[Run]]:
    """Train the preset with `base` and each of the changes, all side by side; return what is changed -> runs."""
    configs = [preset(dataset, **{**base, **changed, "seed": seed}) for changed in changes.values() for seed in seeds]
    runs = iter(train_all(configs, say=lambda line: None))
    return {name: [next(runs) for _ in seeds] for name in changes}


def level(run: Run) -> tuple[float, int]:
    """Return the mean score of positives in the last quarter of the steps, and the step after which the sign stays."""
    steps = run.history()
    steps = steps[steps["kind"] == "step"]
    scores = steps["positive_score"].to_numpy()
    end = scores[-max(1, len(scores) // 4) :].mean()
    other = steps["step"].to_numpy()[(scores < 0) != (end < 0)]
    return float(end), int(other.max(initial=0))


def _range(levels: Sequence[float]) -> str:
    return f"{min(levels):+.2f} to {max(levels):+.2f}" if levels else ""


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    main()
