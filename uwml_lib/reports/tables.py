"""Tables of finished runs: mean, spread, paired differences."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from uwml_lib.config import FIDELITY, ExperimentConfig
from uwml_lib.evaluation.statistics import paired_bootstrap, paired_interval, summarize, verdict
from uwml_lib.runs.groups import Experiment, by_model
from uwml_lib.runs.run import Run, collapsed
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import sha256_of
from uwml_lib.support.progress import duration

COLUMNS = {
    "image_to_text_recall_at_1": "i→t R@1",
    "image_to_text_recall_at_5": "R@5",
    "image_to_text_recall_at_10": "R@10",
    "text_to_image_recall_at_1": "t→i R@1",
    "text_to_image_recall_at_5": "R@5 ",
    "text_to_image_recall_at_10": "R@10 ",
    "rsum": "rsum",
}
"""Metric -> column heading; a trailing blank keeps the second direction's headings apart."""

HABITS: dict[str, dict[str, Any]] = {
    "none": {},
    "captions as bytes": {"captions": FIDELITY["released"]["captions"]},
    "siblings as negatives": {"siblings": FIDELITY["released"]["siblings"]},
    "all four": FIDELITY["released"],
}
"""Habit of the released code -> settings; the other two of the four are no matter of training."""


def results_table(experiment: Experiment) -> pd.DataFrame:
    """One row a loss, mean ± std over seeds in every cell."""
    rows = {
        loss: {COLUMNS[name]: summarize([run.metrics[name] for run in runs]).mean_and_std for name in COLUMNS}
        | {"seeds": len(runs)}
        for loss, runs in experiment.by_loss().items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = f"loss ({experiment.split} split)"
    return table


def fidelity_table(experiment: Experiment) -> pd.DataFrame:
    """One row a habit of the released code, after one without any: mean ± std, and the difference in rsum to that.

    The differences are paired, with 95 % intervals: over seeds (paired t), and over images (bootstrap).
    """
    by_habit: dict[str, dict[int, Run]] = {}
    for run in (*experiment.runs, *experiment.released):
        by_habit.setdefault(habit_of(run), {})[run.config["seed"]] = run
    rows = {}
    for habit, runs in by_habit.items():
        shown = ("image_to_text_recall_at_1", "text_to_image_recall_at_1", "rsum")
        row = {COLUMNS[name]: summarize([run.metrics[name] for run in runs.values()]).mean_and_std for name in shown}
        if habit != "none":
            pairs = [(run, by_habit["none"][seed]) for seed, run in runs.items() if seed in by_habit["none"]]
            sides = list(zip(*pairs, strict=True))
            over_images = paired_bootstrap(*(np.mean([run.rsum_by_image for run in side], axis=0) for side in sides))
            with_habit, without = ([run.metrics["rsum"] for run in side] for side in sides)
            row["difference, over seeds"] = str(paired_interval(with_habit, without))
            row["difference, over images"] = str(over_images)
        rows[habit] = row | {"seeds": len(runs)}
    table = pd.DataFrame.from_dict(rows, orient="index").fillna("")
    table.index.name = f"habit ({experiment.split} split)"
    return table


def habit_of(run: Run) -> str:
    """Name the habit of the released code that a run was trained with, the most of several."""
    config = ExperimentConfig.from_dict(run.config)
    found = [name for name, changes in HABITS.items() if all(getattr(config, key) == changes[key] for key in changes)]
    return found[-1]


def models_table(experiment: Experiment) -> pd.DataFrame:
    """One row for each model: rsum of each loss, mean ± std, and of the first two their difference, paired over seeds.

    Where SCAN's two directions were scored as an ensemble, that is a row, too. Where all trainings of
    a loss collapsed, a last column names it.
    """
    rows = {}
    for model, by_loss in by_model(experiment).items():
        rsums = {loss: [run.metrics["rsum"] for run in runs] for loss, runs in by_loss.items()}
        b, a = list(rsums)[:2]
        over_images = paired_bootstrap(*(np.mean([r.rsum_by_image for r in by_loss[loss]], axis=0) for loss in (a, b)))
        rows[model] = {f"{loss} rsum": summarize(values).mean_and_std for loss, values in rsums.items()} | {
            f"{a} − {b}, over seeds": str(paired_interval(rsums[a], rsums[b])),
            "over images": str(over_images),
            "seeds": len(rsums[a]),
            "collapsed": ", ".join(loss for loss, runs in by_loss.items() if all(map(collapsed, runs))),
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = f"model ({experiment.split} split)"
    return table if table["collapsed"].any() else table.drop(columns="collapsed")


def run_table(experiment: Experiment) -> pd.DataFrame:
    """One row for each run: its folder, what it reached, how long it took, commit, and SHA-256 of its results.json."""
    runs = experiment.all_runs
    several = len({run.model for run in runs}) > 1
    tried = any(run.config["loss_options"] for run in runs)
    return pd.DataFrame(
        {
            "run folder": run.folder.name,
            **({"model": run.model} if several else {}),
            **({"loss options": _options(run.config["loss_options"])} if tried else {}),
            **({"habit": habit_of(run)} if experiment.released else {}),
            "seed": run.config["seed"],
            "best epoch": run.results["best_epoch"],
            f"{run.chosen_by} rsum": round(run.results["dev_rsum"], 1),
            f"{experiment.split} rsum": round(run.metrics["rsum"], 1),
            "training": duration(run.results["training_seconds"]),
            "commit": ", then ".join(map(_commit, run.results["provenance"]["sessions"])),
            "SHA-256": sha256_of(run.folder / "results.json")[:12],
        }
        for run in runs
    ).set_index("run folder")


def _options(options: dict[str, Any]) -> str:
    """Arguments of a loss in few words, for a table."""
    words = json.dumps(options, separators=(", ", " ")).translate(str.maketrans("", "", '{}"'))
    return words or "defaults"


def _commit(session: dict[str, Any]) -> str:
    return (session["commit"] or "unknown")[:8] + ("" if session["clean_tree"] else " changed")


def comparison(experiment: Experiment, a: str = "polynomial", b: str = "triplet") -> dict[str, Any]:
    """Compare two losses by rsum: paired over seeds, and paired over test images with the seeds averaged.

    Raises UWMLError, naming them, for a run that is listed twice and for runs that differ in more than loss and seed,
    and if the two losses were not run with the same seeds.
    """
    _check_comparable(experiment)
    by_loss = experiment.by_loss()
    seeds = {name: [run.config["seed"] for run in by_loss.get(name, [])] for name in (a, b)}
    if not seeds[a] or seeds[a] != seeds[b]:
        raise UWMLError(f"{experiment.dataset}: found runs with the seeds {seeds}, expected the same for both losses")
    of_a, of_b = ([run.metrics["rsum"] for run in by_loss[name]] for name in (a, b))
    over_seeds = paired_interval(of_a, of_b)
    over_queries = paired_bootstrap(*(np.mean([run.rsum_by_image for run in by_loss[name]], axis=0) for name in (a, b)))
    return {
        "a": a, "b": b, "over_seeds": over_seeds, "over_queries": over_queries,
        "verdict": verdict(a, b, over_seeds, over_queries),
    }  # fmt: skip


def _check_comparable(experiment: Experiment) -> None:
    folders: dict[Path, Run] = {}
    pairs: dict[tuple[str, int], Run] = {}
    options: dict[str, Run] = {}
    first = experiment.runs[0]
    for run in (*experiment.runs, *experiment.without_warmup):
        if (other := folders.setdefault(run.folder.resolve(), run)) is not run:
            raise UWMLError(
                f"{experiment.dataset}: {run.folder} and {other.folder} are one run listed twice, expected once"
            )
    for run in experiment.runs:
        loss, seed = run.config["loss"], run.config["seed"]
        if (other := pairs.setdefault((loss, seed), run)) is not run:
            raise UWMLError(
                f"{experiment.dataset}: {other.folder.name} and {run.folder.name} are both {loss} with the seed "
                f"{seed}, expected one run of each"
            )
        like = options.setdefault(loss, run)
        names = [name for name in _settings_that_differ(first.config, run.config) if name != "loss_options"]
        names += [] if run.config["loss_options"] == like.config["loss_options"] else ["loss_options"]
        names += ["split"] if run.results["split"] != first.results["split"] else []
        if names:
            other = like if names == ["loss_options"] else first
            raise UWMLError(
                f"{experiment.dataset}: {run.folder.name} differs from {other.folder.name} in {', '.join(names)}, "
                "expected runs that differ in the loss and the seed alone"
            )


def _settings_that_differ(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Names of the settings, other than loss and seed, that can change a result and differ."""
    skipped = {"loss", "seed", *(item.name for item in fields(ExperimentConfig) if "cosmetic" in item.metadata)}
    return [name for name in {**a, **b} if name not in skipped and a.get(name) != b.get(name)]


def warmup_effect(experiment: Experiment) -> pd.DataFrame:
    """One row a run without warm-up: its last dev rsum, and that of the same loss and seed with warm-up by then."""
    rows = []
    for run in experiment.without_warmup:
        loss, seed, epochs = (run.config[name] for name in ("loss", "seed", "epochs"))
        same = [other for other in experiment.by_loss().get(loss, []) if other.config["seed"] == seed]
        other = next((other for other in same if other.config["epochs"] >= epochs), None)
        if other is None:
            raise UWMLError(
                f"{run.folder.name}: found no run of {loss} with seed {seed} and warm-up to compare it with"
            )
        without, with_warmup = (
            item.history().query("kind == 'epoch'")["dev_rsum"].iloc[epochs - 1] for item in (run, other)
        )
        rows.append((loss, seed, epochs, without, with_warmup))
    return pd.DataFrame(rows, columns=["loss", "seed", "epochs", "without_warmup", "with_warmup"])


def plain(value: Any) -> dict[str, float | None]:
    """Return a summary or an interval as JSON has it: null where there is no number."""
    return {name: None if isinstance(x, float) and np.isnan(x) else x for name, x in value._asdict().items()}
