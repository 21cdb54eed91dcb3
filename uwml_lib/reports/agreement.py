"""Whether new results agree with the published ones below reports/reference."""

import math
from itertools import product
from pathlib import Path
from typing import Any

from uwml_lib.config import ExperimentConfig
from uwml_lib.evaluation.statistics import Summary
from uwml_lib.runs.study_runs import settings_that_differ
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json
from uwml_lib.support.paths import reference_folder


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
                names = settings_that_differ(a, b)
                differ += [f"{name} {getattr(a, name)}, not {getattr(b, name)}" for name in names]
    except UWMLError:
        return f"Against {_shown(place)}: the settings of its runs cannot be read, so the numbers are not compared."
    if differ:
        words = "; ".join(dict.fromkeys(differ))
        return f"Against {_shown(place)}: the settings differ ({words}), so the numbers are not compared."
    sentences = [_agreement(loss, rsum, published[loss][0]) for loss, (rsum, _) in ours.items()]
    return f"Against {_shown(place)}: {'; '.join(sentences)}."


def _agreement(loss: str, ours: Summary, published: Summary) -> str:
    """Whether the means of one loss's rsum are within two standard deviations, the larger of both."""
    one_seed = min(ours.n, published.n) < 2
    spread = 0.0 if one_seed else max(ours.std, published.std)
    if not spread:
        why = "one seed" if one_seed else "seeds that do not differ"
        return f"{loss}: rsum {ours.mean:.1f}, published {published.mean:.1f}, and with {why} no spread to judge by"
    word = "agrees with" if abs(ours.mean - published.mean) <= 2 * spread else "differs from"
    return f"{loss}: rsum {ours.mean:.1f} {word} the {published.mean:.1f} there (2 std = {2 * spread:.1f})"


def _shown(path: Path) -> str:
    return "/".join(("reports/reference", *path.relative_to(paths.REFERENCE).parts))


def _rsum_and_runs(item: dict[str, Any]) -> tuple[Summary, list[str]]:
    """Of one loss in a summary: rsum, and the names of its runs; raises KeyError or TypeError if it is not so made."""
    rsum, runs = Summary(**item["metrics"]["rsum"]), list(item["runs"].keys())
    numbers = (rsum.mean, rsum.n) if rsum.n == 1 else rsum
    if not runs or not all(type(value) in (int, float) and math.isfinite(value) for value in numbers):
        raise TypeError("expected numbers, and the names of the runs they come from")
    return rsum, runs


def _run_config(folder: Path) -> ExperimentConfig:
    return ExperimentConfig.from_dict(read_json(folder / "config.json").get("config"))
