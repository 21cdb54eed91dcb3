"""Trainings in bf16 on a CPU: what they save, and whether they cost quality.

Needs a CPU with instructions for bf16 (`uwml doctor`). A training step is timed in both precisions at several widths;
then the polynomial loss is trained in both with the same seeds, and the difference in rsum must lie within 3 points. If
five seeds leave its interval too wide to lie there, wherever it is, there are ten. `python benchmarks/precision.py
[--dataset f8k_regions --data-root /data --settings settings.json]`; on scenes half an hour on two cores, on Flickr8k's
regions one to three hours. Trainings that are finished are not repeated.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from measuring import Target, report, style, take_turns
from training import Step

from uwml_lib.config import ExperimentConfig, preset
from uwml_lib.datasets import prepare_data
from uwml_lib.evaluation import Interval, compare, products, summarize
from uwml_lib.runs import Run
from uwml_lib.studies.side_by_side import train_all
from uwml_lib.studies.tuned import of_loss, read_settings
from uwml_lib.support.numerics import QUICK_WIDTH, has_bf16_instructions, this_device, threads

SEEDS, WITHIN = 5, 3.0
"""How many seeds are trained, at first; points of rsum within which their difference must lie."""
WIDTHS = (64, 256, 1024)
SIZES: dict[str, Any] = {"regions": 36, "features": 256, "vocabulary": 8000}


def times(widths: tuple[int, ...] = WIDTHS, **sizes: Any) -> dict[int, dict[str, float]]:
    """Return width -> precision -> seconds of a training step with one thread, as trainings side by side have."""
    found = {}
    for width in widths:
        step = Step("i2t", width=width, **{**SIZES, **sizes})
        calls = {name: products(name, this_device())(step.kit) for name in ("float32", "bf16")}
        with threads(1):
            found[width] = take_turns(calls)
    return found


def trainings(config: ExperimentConfig, seeds: int = SEEDS) -> dict[str, list[Run]]:
    """Train in both precisions with so many seeds; precision -> runs."""
    of = {"float32": "no", "bf16": "bf16"}
    configs = [replace(config, mixed_precision=name, seed=seed) for seed in range(seeds) for name in of.values()]
    runs = train_all(configs)
    return {name: runs[place :: len(of)] for place, name in enumerate(of)}


def apart(runs: dict[str, list[Run]]) -> Interval:
    """Return by how much the rsum is higher in bf16, with its interval over seeds."""
    return compare(runs["bf16"], runs["float32"]).over_seeds


def trained_enough(config: ExperimentConfig) -> dict[str, list[Run]]:
    """Train with `SEEDS` seeds, and as many again if the interval is too wide to lie within `WITHIN` of 0."""
    runs = trainings(config)
    difference = apart(runs)
    return trainings(config, 2 * SEEDS) if difference.high - difference.low > 2 * WITHIN else runs


def within(difference: Interval) -> Target:
    """Say whether a whole interval lies within `WITHIN` points of 0."""
    farthest = max(abs(difference.low), abs(difference.high))
    return Target("bf16 − float32, farthest end of the 95 % interval of the rsum", farthest, WITHIN, at_most=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="scenes")
    parser.add_argument("--data-root", default="")
    parser.add_argument("--settings", type=Path, help="the loss's settings, as `make evidence` chose them")
    options = parser.parse_args()
    if not has_bf16_instructions():
        parser.exit(1, "This CPU has no instructions for bf16, so there is nothing to measure.\n")
    tuned = of_loss(read_settings(options.settings) if options.settings else {}, "polynomial")
    width = max(QUICK_WIDTH, preset(options.dataset).embed_size)
    config = preset(options.dataset, data_root=options.data_root, embed_size=width, **tuned)
    prepare_data(config)
    seconds, runs = times(), trained_enough(config)
    difference = apart(runs)
    rows = [
        {"": f"a step, width {width}", "float32": f"{of['float32']:.3f} s", "bf16": f"{of['bf16']:.3f} s",
         "difference": f"{of['float32'] / of['bf16']:.2f} times as fast"}
        for width, of in seconds.items()
    ]  # fmt: skip
    rsums = {name: summarize([run.rsum for run in of]) for name, of in runs.items()}
    rows.append({"": f"rsum on {config.dataset}, {len(runs['bf16'])} seeds"}
                | {name: of.mean_and_std for name, of in rsums.items()} | {"difference": str(difference)})  # fmt: skip
    with style():
        figure, axis = plt.subplots(figsize=(6, 3))
        for place, (name, of) in enumerate(runs.items()):
            axis.plot([run.seed for run in of], [run.rsum for run in of], "so"[place], label=name)
        axis.set(xlabel="seed", ylabel="rsum", title=f"Polynomial loss on {config.dataset}, width {width}")
        axis.locator_params("x", integer=True)
        figure.legend(loc="outside lower center", ncols=2)
    report(
        "precision", "Training in bf16 on a CPU", rows, figure,
        "The rsum of every seed in both precisions.",
        "A step is bounded by passes over memory where the width is small, and by products where it is large.",
        [within(difference)], dataset=config.dataset, seconds=seconds, difference=difference._asdict(),
        runs={name: [run.folder.name for run in of] for name, of in runs.items()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
