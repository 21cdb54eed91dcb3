"""Published numbers beside what was trained here: source, ours, difference, verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import signature
from itertools import product
from pathlib import Path
from typing import Any

from uwml_lib.config import FIDELITY, ExperimentConfig, Fidelity
from uwml_lib.evaluation.statistics import summarize
from uwml_lib.losses import LOSSES
from uwml_lib.models.scan import DEFAULT_LAMBDA_LSE, DEFAULT_LAMBDA_SOFTMAX
from uwml_lib.released.published import CAPTIONS_PER_IMAGE, FEATURE_SHAPE, PROTOCOLS, ROWS, PublishedRow, row_config
from uwml_lib.runs.run import Run
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import lock, write_text
from uwml_lib.support.progress import Say, say

SMALLEST_TOLERANCE = 1.0
"""Points of rsum: less is not asked of one training, whose spread is unknown; rounding alone makes up to 0.3."""

FREE = ("seed", "device", "threads")
"""Settings, besides the cosmetic ones, that a run may have otherwise than the row: the last bits depend on them."""

COLUMNS = ("row", "method", "source", "published", "how", "ours", "difference", "verdict")
TRAINED, CHECKPOINT = "trained here", "released checkpoint"
WAYS: tuple[tuple[str, Fidelity], ...] = tuple(product((TRAINED, CHECKPOINT), FIDELITY))
"""How one of our numbers came about. A checkpoint was trained as released, whatever it is evaluated by."""

CELLS = "In a cell: image→text R@1/5/10 · text→image R@1/5/10 · rsum, in percent; – is not given by the source."
NOTE = (
    "How: trained here, or the released checkpoint scored here (`uwml evaluate`); corrected, or with the habits of the "
    "released code (`--fidelity released`). Ours: means over the finished runs below `reports/runs`, and the "
    "checkpoints below `reports/evaluations`, that have the row's settings, features of the published shape and "
    "number, and the row's protocol; a seed counts once, ± is the sample standard deviation over seeds. "
    "Difference: ours − published, rsum. The last column says reproduced within x if the two differ by at most x, "
    "beyond it better or not reproduced; x is twice the larger of our standard deviation and the published one, but "
    f"at least {SMALLEST_TOLERANCE:.0f} point of rsum, and that for a single seed."
)

ABOUT = (
    "What was published of the method, of what it builds on and of later models. What is trained here on the same "
    "features comes to stand beside it; so far a row without it says why not."
)


def publish_comparison(say: Say = say) -> str:
    """Write the comparison to reports/published.md and return it; what cannot be read is left out, and said."""
    text, path = comparison_text(finished_runs(say)), paths.REPORTS / "published.md"
    with lock(path, say):
        write_text(path, text)
    return text


def finished_runs(say: Say) -> list[Run]:
    """Load what was evaluated on the data sets of the protocols: runs and released checkpoints, but no ensembles."""
    runs, files = [], set[Path]()
    for dataset in {protocol.dataset for protocol in PROTOCOLS}:
        files |= {*(paths.RUNS / dataset).glob("*/results*.json"), *(paths.EVALUATIONS / dataset).glob("*.json")}
    for path in sorted(files):
        try:
            runs.append(Run.load(path.parent, path.name))
        except UWMLError as error:
            say(f"{path.parent.name}: left out of the comparison ({error})")
    return [run for run in runs if len(run.results.get("members", ())) < 2]


def comparison_text(runs: Sequence[Run]) -> str:
    """The comparison in Markdown: a table a protocol, the runs behind ours, the commands that fill what is empty."""
    blocks, behind, missing = ["# Published numbers, and ours", ABOUT], [], []
    for protocol in PROTOCOLS:
        lines = []
        for row, way in product([row for row in ROWS.values() if row.protocol is protocol], WAYS):
            selected, reason = select(row, runs, way)
            if selected or way == WAYS[0]:
                lines.append(_cells(row, way, selected, reason))
            if selected:
                checkpoints = way[0] == CHECKPOINT
                names = (run.results["members"][0]["file"] if checkpoints else run.folder.name for run in selected)
                behind.append(f"- {row.name}, {', '.join(way)}: {', '.join(names)}")
            elif row.training is not None and way == WAYS[0]:
                missing.append(f"uwml train --row {row.name} --data-root /data --seed 0")
        told = [column for column in zip(COLUMNS, *lines, strict=True) if {*column[1:]} != {"–"}]
        heading, *lines = zip(*told, strict=True)
        blocks += [f"## {protocol.name} ({protocol.dataset}, {protocol.evaluation})", _markdown(heading, lines)]
    blocks.append(CELLS)
    if behind:
        blocks += [NOTE, "## The runs behind ours", "\n".join(behind)]
    if missing:
        blocks += [
            "## What fills the rest",
            "One training a seed; rows with the same settings share their runs. `--fidelity released` trains with the "
            "habits of the release. On COCO the run is then to be evaluated as the heading says: "
            "`uwml evaluate RUN --split testall` for 5K, and with `--fold5` for 1K.",
            "\n".join(["```bash", *missing, "```"]),
        ]
    return "\n\n".join(blocks) + "\n"


def select(row: PublishedRow, runs: Sequence[Run], way: tuple[str, Fidelity]) -> tuple[list[Run], str]:
    """Return those of all runs, one a seed, that may stand beside a row in one of `WAYS`, and if there is none, why."""
    if row.training is None:
        return [], row.not_trained
    kind, fidelity = way
    trained = FIDELITY["released" if kind == CHECKPOINT else fidelity]
    of_training: dict[str, Any] = {name: trained[name] for name in ("siblings", "twins") if name in trained}
    wanted = settings(replace(row_config(row.name), **{**FIDELITY[fidelity], **of_training}))
    by_seed, reason = {}, "no run"
    for run in runs:
        if ("members" in run.results) == (kind == CHECKPOINT) and settings(run.config) == wanted:
            if obstacle := _obstacle(row, run.results):
                reason = obstacle
            else:
                by_seed[run.seed] = run
    return [by_seed[seed] for seed in sorted(by_seed)], reason


def settings(config: ExperimentConfig) -> dict[str, Any]:
    """What decides a result besides the seed: defaults filled in, and what the model does not use left out."""
    values = {name: value for name, value in config.identity.items() if name not in FREE}
    values["lambda_softmax"] = config.lambda_softmax or DEFAULT_LAMBDA_SOFTMAX[config.direction]
    lambda_lse = config.lambda_lse or DEFAULT_LAMBDA_LSE[config.direction]
    values["lambda_lse"] = lambda_lse if config.aggregation == "LogSumExp" else None
    parameters = signature(LOSSES[config.loss]).parameters if config.loss in LOSSES else {}
    options = {name: parameter.default for name, parameter in parameters.items()} | config.loss_options
    values["loss_options"] = {name: list(x) if isinstance(x, tuple) else x for name, x in options.items()}
    return values


def _obstacle(row: PublishedRow, results: Mapping[str, Any]) -> str:
    """Say what keeps results from counting: other data than the protocol's, or another split; empty if nothing does."""
    protocol, shapes, split = row.protocol, results.get("features", {}), results["split"]
    trained_on = () if "members" in results else ("train", "dev")  # of a checkpoint only its name is known
    for name in dict.fromkeys((*trained_on, split)):
        if name not in shapes:
            return "a run that does not say the shape of its features"
        n_images = protocol.images.get(name)
        if n_images and name == "dev" and (cap := results["config"].get("dev_captions")):
            n_images = min(n_images, cap // CAPTIONS_PER_IMAGE)
        if n_images and shapes[name] != [n_images, *FEATURE_SHAPE]:
            found, wanted = (" × ".join(f"{n:,}" for n in x) for x in (shapes[name], (n_images, *FEATURE_SHAPE)))
            return f"other data ({name}: {found}, not {wanted})"
    if results["captions_per_image"] != CAPTIONS_PER_IMAGE:
        return f"other data ({results['captions_per_image']} captions an image, not {CAPTIONS_PER_IMAGE})"
    if (split, results.get("folds", 1)) != (protocol.split, protocol.folds):
        return f"evaluated on the {split} split, not on: {protocol.evaluation}"
    return ""


def _cells(row: PublishedRow, way: tuple[str, str], runs: Sequence[Run], reason: str) -> tuple[str, ...]:
    published = (row.name, row.method, row.source, _numbers(row.metrics, row.std, row.n))
    if not runs or (rsum := row.metrics["rsum"]) is None:
        return *published, "–", "–", "–", f"not comparable: {reason}"
    summaries = {name: summarize([run.metrics[name] for run in runs]) for name in row.metrics}
    means = {name: value.mean for name, value in summaries.items()}
    std = {"rsum": summaries["rsum"].std} if len(runs) > 1 else {}
    difference = means["rsum"] - rsum
    words = verdict(difference, std.get("rsum", 0.0), row) + ("" if std else " (one seed)")
    return *published, ", ".join(way), _numbers(means, std, len(runs)), f"{difference:+.1f}", words


def verdict(difference: float, std: float, row: PublishedRow) -> str:
    """Judge ours − published in rsum as `NOTE` says; std: our standard deviation, 0 for one seed."""
    tolerance = max(SMALLEST_TOLERANCE, 2 * std, 2 * row.std.get("rsum", 0.0))
    if abs(difference) <= tolerance:
        return f"reproduced within {tolerance:.1f}"
    return "better" if difference > 0 else "not reproduced"


def _numbers(metrics: Mapping[str, float | None], std: Mapping[str, float], n: int) -> str:
    """R@1/5/10 of both directions and rsum in one cell, with ± and n where there are several trainings."""
    spreads = {name: f" ± {round(value, 2):g}" for name, value in std.items()}
    words = ["–" if value is None else f"{value:.1f}{spreads.get(name, '')}" for name, value in metrics.items()]
    return f"{'/'.join(words[:3])} · {'/'.join(words[3:6])} · {words[6]}" + (f" (n = {n})" if n > 1 else "")


def _markdown(heading: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [heading, ["---"] * len(heading), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def published_table() -> str:
    """The published numbers in Markdown: what to type for a row that can be trained, and its numbers."""
    heading = ("`uwml train --data-root /data --row` ...", "what", "measured on", "published", "source")
    lines = []
    for row in ROWS.values():
        name = f"`{row.name}`" if row.training is not None else f"(not trained here: {row.not_trained})"
        measured_on = f"{row.protocol.name}, {row.protocol.evaluation}"
        lines.append((name, row.method, measured_on, _numbers(row.metrics, row.std, row.n), row.source))
    return _markdown(heading, lines)
