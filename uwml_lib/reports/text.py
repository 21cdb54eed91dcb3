"""From finished runs to an honest text: the table, the verdict, agreement with the published results."""

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from uwml_lib.config import ExperimentConfig
from uwml_lib.evaluation.statistics import Summary, chance_rsum, paired_bootstrap, summarize
from uwml_lib.models import MODELS
from uwml_lib.reports.tables import COLUMNS, _settings_that_differ, comparison, plain, results_table, warmup_effect
from uwml_lib.runs.groups import Experiment
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, sha256_of, write_json
from uwml_lib.support.paths import reference_folder, report_folder

FEATURES = {
    ("f8k_precomp", 36, 128): (
        "36 overlapping windows, 2 x 2 cells, of the last feature map (7 x 7 x 1280) of an ImageNet MobileNetV2, "
        "PCA-whitened to 128 numbers. They are no bottom-up-attention features, so these numbers compare losses and "
        "models with each other, not with published tables"
    ),
}
"""What features are, by data set and shape, where that must be known to read the numbers."""


def summary_json(experiment: Experiment) -> dict[str, Any]:
    """Everything the report states, as plain values, each traceable to its run folders."""
    compared = comparison(experiment)
    first = experiment.runs[0].results
    n_images = len(first["ranks"]["image_to_text_ranks"])
    return {
        "dataset": experiment.dataset,
        "split": experiment.split,
        "n_images": n_images,
        "captions_per_image": first["captions_per_image"],
        "chance_rsum": chance_rsum(n_images, first["captions_per_image"]),
        "losses": {
            loss: {
                "metrics": {name: plain(summarize([run.metrics[name] for run in runs])) for name in runs[0].metrics},
                "runs": {run.folder.name: sha256_of(run.folder / "results.json") for run in runs},
                "training_seconds": plain(summarize([run.results["training_seconds"] for run in runs])),
            }
            for loss, runs in experiment.by_loss().items()
        },
        "comparison": compared | {name: plain(compared[name]) for name in ("over_seeds", "over_queries")},
        "without_warmup": {run.folder.name: run.metrics["rsum"] for run in experiment.without_warmup},
    }  # fmt: skip


def report_text(experiment: Experiment, against_reference: bool = True) -> str:
    """The result in Markdown: the table, the paired differences, the verdict, agreement with the published results."""
    summary = summary_json(experiment)
    compared = comparison(experiment)
    config = experiment.runs[0].config
    attends = "lambda_softmax" in MODELS[config["model"]].settings
    lines = [
        f"## {experiment.dataset}: {summary['n_images']} {experiment.split} images, "
        f"{summary['captions_per_image']} captions each",
        "",
        f"{experiment.runs[0].model}, width {config['embed_size']}, batches of "
        f"{config['batch_size']}"
        + (f", λ {config['lambda_softmax']:g} in the attention" if config["lambda_softmax"] and attends else "")
        + f"; {config['epochs']} epochs, {min(config['warmup_epochs'], config['epochs'])} of them "
        "warm-up" + (f"; only the first {config['max_images']} images" if config["max_images"] else "") + ".",
        "",
        results_table(experiment).to_markdown(),
        "",
        "Recalls in percent, mean ± sample standard deviation over seeds; rsum is the sum of the six recalls. "
        f"Random scores would give an rsum of {summary['chance_rsum']:.1f}.",
        "",
        f"{compared['a']} − {compared['b']}, rsum, 95 % intervals: {compared['over_seeds']} over seeds (paired t), "
        f"{compared['over_queries']} over {experiment.split} images (paired bootstrap, seeds averaged).",
        "",
        f"**Verdict: {compared['verdict']}.**",
    ]
    if experiment.without_warmup:
        values = "; ".join(
            f"{row.loss} {row.without_warmup:.1f} against {row.with_warmup:.1f} with it"
            for row in warmup_effect(experiment).itertuples()
        )
        epochs = experiment.without_warmup[0].config["epochs"]
        lines += ["", f"Without warm-up, dev rsum after {epochs} epochs (one seed each): {values}."]
    if config["warmup_epochs"] >= config["epochs"]:
        lines += ["", "Every epoch was warm-up: this compares the dense forms of the losses."]
    if experiment.split != "test":
        held_out = f"the last {config.get('selection_images')} training images, kept out of training, chose the epoch"
        chose = "which also chose the epoch" if experiment.runs[0].chosen_by == "dev" else held_out
        lines += ["", f"There is no test split here: this is {experiment.split}; {chose}."]
    shape = experiment.runs[0].results.get("features", {}).get(experiment.split, ())
    if about := FEATURES.get((experiment.dataset, *shape[1:])):
        lines += ["", f"The features: {about}."]
    if (baseline := report_folder(experiment.dataset) / "linear_cca.json").exists():
        lines += ["", linear_cca_text(baseline, experiment)]
    if against_reference and (agreement := agreement_with_reference(summary)):
        lines += ["", agreement]
    return "\n".join(lines) + "\n"


def linear_cca_text(path: Path, experiment: Experiment) -> str:
    """Say what `benchmarks/linear_cca.py` found on the same images, and how far the losses are from it.

    Raises UWMLError if the file is something else, or of other images.
    """
    baseline = read_json(path)
    try:
        metrics, theirs = baseline["metrics"], np.array(baseline["rsum_by_image"])
        cells = ", ".join(f"{COLUMNS[name].strip()} {metrics[name]:.1f}" for name in COLUMNS)
        apart = ", ".join(
            f"{loss} {paired_bootstrap(np.mean([run.rsum_by_image for run in runs], axis=0), theirs)}"
            for loss, runs in experiment.by_loss().items()
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UWMLError(f"{path}: not what `benchmarks/linear_cca.py` writes of these images; run it again") from error
    return (
        f"For comparison, linear CCA on the same images (`benchmarks/linear_cca.py`): {cells}. In rsum the losses "
        f"differ from it by (95 % intervals over images, seeds averaged): {apart}."
    )


def agreement_with_reference(summary: dict[str, Any]) -> str:
    """Say whether new results agree with reports/reference within the seeds' spread; empty if it has none of these.

    Numbers are compared only where the settings are the same, and judged only where there are seeds to judge by.
    """
    place = reference_folder(summary["dataset"])
    path = place / "summary.json"
    if not path.exists():
        return ""
    try:
        reference = read_json(path)
        if isinstance(reference["dataset"], str) and reference["dataset"] != summary["dataset"]:
            return ""
        what = {name: reference[name] for name in ("split", "n_images", "captions_per_image")}
        published = {loss: _rsum_and_runs(item) for loss, item in reference["losses"].items()}
    except (UWMLError, KeyError, TypeError, AttributeError):
        return f"{_shown(path)} cannot be read as a summary, so nothing is compared with it."
    ours = {loss: _rsum_and_runs(item) for loss, item in summary["losses"].items() if loss in published}
    if not ours:
        return ""
    try:
        differ = [f"{name} {summary[name]}, not {value}" for name, value in what.items() if summary[name] != value]
        for loss, (_, runs) in ours.items():
            here = [_run_config(paths.RUNS / summary["dataset"] / name) for name in runs]
            there = [_run_config(place / "runs" / name) for name in published[loss][1]]
            for a, b in product(here, there):
                differ += [f"{name} {a[name]}, not {b[name]}" for name in _settings_that_differ(a, b)]
    except UWMLError:
        return f"Against {_shown(place)}: the settings of its runs cannot be read, so the numbers are not compared."
    if differ:
        words = "; ".join(dict.fromkeys(differ))
        return f"Against {_shown(place)}: the settings differ ({words}), so the numbers are not compared."
    sentences = []
    for loss, (rsum, _) in ours.items():
        other = published[loss][0]
        one_seed = min(rsum.n, other.n) < 2
        spread = 0.0 if one_seed else max(rsum.std, other.std)
        if not spread:
            why = "one seed" if one_seed else "seeds that do not differ"
            sentences.append(
                f"{loss}: rsum {rsum.mean:.1f}, published {other.mean:.1f}, and with {why} no spread to judge by"
            )
            continue
        word = "agrees with" if abs(rsum.mean - other.mean) <= 2 * spread else "differs from"
        sentences.append(f"{loss}: rsum {rsum.mean:.1f} {word} the {other.mean:.1f} there (2 std = {2 * spread:.1f})")
    return f"Against {_shown(place)}: {'; '.join(sentences)}."


def _shown(path: Path) -> str:
    return "/".join(("reports/reference", *path.relative_to(paths.REFERENCE).parts))


def _rsum_and_runs(item: dict[str, Any]) -> tuple[Summary, list[str]]:
    """Of one loss in a summary: rsum, and the names of its runs; raises KeyError or TypeError if it is not so made."""
    rsum, runs = Summary(**item["metrics"]["rsum"]), list(item["runs"].keys())
    numbers = (rsum.mean, rsum.n) if rsum.n == 1 else rsum
    if not runs or not all(type(value) in (int, float) and math.isfinite(value) for value in numbers):
        raise TypeError("expected numbers, and the names of the runs they come from")
    return rsum, runs


def _run_config(folder: Path) -> dict[str, Any]:
    return ExperimentConfig.from_dict(read_json(folder / "config.json").get("config")).to_dict()


def reliability_text() -> str:
    """Say what `make torture` found last; empty if it has not run.

    Raises UWMLError, naming the file, if it holds something else.
    """
    if not paths.RELIABILITY.exists():
        return ""
    found = read_json(paths.RELIABILITY)
    try:
        kills = sum(item["killed"] for item in found["kills"].values())
        lost = sum(item["lost"] for item in found["kills"].values())
        mutations, tests = found["mutations"], found["tests"]
        failed = tests["failures"] + tests["errors"]
        skipped = f" ({tests['skipped']:,} skipped)" if "skipped" in tests else ""  # older files do not say
        return (
            f"Reliability (`make torture`): killed {kills:,} times at random moments ({', '.join(found['kills'])}), "
            f"results lost or changed: {lost:,}; {mutations['tried']:,} damaged files and settings, "
            f"wrong results: {mutations['wrong']:,}, unclear errors: {mutations['unclear']:,}, "
            f"hangs: {mutations['hung']:,}; of the {tests['tests']:,} attacks as tests{skipped}, which fill the disk "
            f"and deny permissions too, {failed:,} failed."
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UWMLError(
            f"{paths.RELIABILITY}: not the figures of `make torture` ({type(error).__name__}: {error}); run it again"
        ) from error


def record(dataset: str, notebook: str, **metrics: float | str | None) -> None:
    """Write what a notebook found to `metrics/NOTEBOOK.json` in the data set's report folder."""
    write_json(report_folder(dataset) / "metrics" / f"{notebook}.json", metrics)
