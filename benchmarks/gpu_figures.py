"""Draw what `gpu.sh` measured, and restore the folders of its runs: `python benchmarks/gpu_figures.py OUT`.

Everything goes below reports/reference/performance/, into a folder named after the device: numbers, figures, the text
of the summary and of the largest kernels, and runs/, which is never pooled with runs on other data or devices.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from measuring import LOOK, draw_by_size, folder_name, plain_logarithm, style

from uwml_lib.reports.figures.trainings import recall_curves
from uwml_lib.runs import Run, StudyRuns
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import (
    atomic_folder,
    check_files,
    make_folder,
    read_json,
    read_sealed_json,
    write_json,
    write_text,
)

Found = Mapping[str, Any]
TEXTS = ("kernels.txt", "summary.txt")
BARS = {  # form -> its words, and its look
    "floor": ("bare products", LOOK["floor"]),
    "kit": ("kit", LOOK["kit"]),
    "plain": ("plain", LOOK["plain"]),
    "loop, kit's loss": ("loop, kit's loss", {"color": "#E69F00"}),
    "loop": ("loop", LOOK["loop"]),
}
EMBEDDED = {"product": ("bare product", "floor"), "kit": ("polynomial", "kit"), "infonce": ("InfoNCE", "loop")}
ALONE = {"loop": ("the release's loop", "loop"), "kit": ("kit", "kit"), "reductions": ("two reductions", "floor")}


def draw_steps(found: Found) -> Figure:
    """Milliseconds of a step by form and precision, a panel a direction, and by batch size of the loss alone and of
    losses from embeddings.
    """
    figure, axes = plt.subplots(1, 4, figsize=(17, 4.4))
    for axis, direction in zip(axes, ("i2t", "t2i"), strict=False):
        axis.set(xlabel="milliseconds", title=direction)
        bars = [
            (f"{words}, {precision}", numbers["milliseconds"][form], look["color"])
            for precision, numbers in found.get(f"attention_{direction}", {}).items()
            for form, (words, look) in BARS.items()
            if numbers.get("milliseconds", {}).get(form)
        ]
        if bars:
            names, values, colors = zip(*bars, strict=True)
            axis.bar_label(axis.barh(names, values, color=colors), fmt="%.3g", padding=3, fontsize=7)
            axis.tick_params(axis="y", labelsize=7)
            plain_logarithm(axis)
            axis.margins(x=0.2)
            axis.invert_yaxis()
    in_tf32 = {name.removesuffix(", tf32"): by for name, by in found.get("embeddings", {}).items() if "tf32" in name}
    of_batches = (("The loss alone", ALONE, found.get("loss", {})), ("From embeddings, tf32", EMBEDDED, in_tf32))
    for axis, (title, forms, measured) in zip(axes[2:], of_batches, strict=True):
        lines = {
            label: (look, {int(n): by[name] for n, by in measured.items() if by.get(name)})
            for name, (label, look) in forms.items()
        }
        draw_by_size(axis, "milliseconds", title, lines)
    return figure


def draw_scoring(found: Found) -> Figure:
    """Seconds of an evaluation by direction and precision, scoring and ranking."""
    figure, axis = plt.subplots(figsize=(7, 2.8))
    names = list(found.get("evaluation", {}))
    scoring, ranking = ([found["evaluation"][name][part] for name in names] for part in ("scoring", "ranking"))
    axis.barh(names, scoring, label="embedding and scoring", color=LOOK["kit"]["color"])
    axis.barh(names, ranking, left=scoring, label="ranking", color="#E69F00", hatch="//")
    axis.set(xlabel="seconds", title=found["title"])
    axis.invert_yaxis()
    axis.legend()
    return figure


def draw_kernels(found: Found) -> Figure:
    """Milliseconds of the largest kernels, a panel a step."""
    panels = found["tables"]
    figure, axes = plt.subplots(len(panels), 1, figsize=(8, 2.4 * len(panels)), squeeze=False)
    for axis, (what, rows) in zip(axes.flat, panels.items(), strict=True):
        names = [f"{place}. {row['kernel'][:50]}" for place, row in enumerate(rows, 1)]
        axis.barh(names, [float(row["ms"]) for row in rows], color=LOOK["kit"]["color"])
        axis.tick_params(axis="y", labelsize=6)
        axis.set(title=what, xlabel="milliseconds")
        axis.invert_yaxis()
    return figure


FIGURES: dict[str, tuple[Callable[[Found], Figure], str]] = {
    "steps": (
        draw_steps,
        "Bars of milliseconds, logarithmic, for each direction and precision: bare products, kit, plain form and "
        "loops; and milliseconds against pairs in a batch, of the loss alone and of losses from embeddings.",
    ),
    "scoring": (draw_scoring, "Bars of seconds for each direction and precision: embedding and scoring, and ranking."),
    "kernels": (draw_kernels, "Bars of milliseconds of the ten largest kernels, a panel for each step."),
}
"""Part -> what draws it, and its figure in words."""


def publish(out: Path) -> Path:
    """Write all of a measurement into the folder of its device, and return that; raises UWMLError for what is none."""
    parts = {path.stem: read_json(path) for path in sorted(out.glob("*.json"))}
    parts = {name: part for name, part in parts.items() if part.get("tables") and "provenance" in part}
    if not parts:
        raise UWMLError(f"{out}: holds no numbers that `bash benchmarks/gpu.sh` wrote")
    first = next(iter(parts.values()))
    folder = make_folder(paths.PERFORMANCE / (folder_name(first["device"]) + ("-smoke" if first["smoke"] else "")))
    for name, part in parts.items():
        trainings = part.pop("runs", None)
        figure, alt = None, ""
        if trainings:
            study = restore(folder / "runs", part["dataset"], trainings)
            part["runs"] = [run.folder.name for run in study.runs]
            alt = "Recall against epochs: a line a loss, with a band over seeds."
            figure, _ = recall_curves(study)
        elif name in FIGURES:
            draw, alt = FIGURES[name]
            with style():
                figure = draw(part)
        if figure is not None:
            figure.savefig(folder / f"{name}.png")
            plt.close(figure)
        write_json(folder / f"{name}.json", {**part, "alt": alt})
    for name in TEXTS:
        if (out / name).exists():
            write_text(folder / name, (out / name).read_text(encoding="utf-8"))
    return folder


def restore(folder: Path, dataset: str, trainings: list[dict[str, Any]]) -> StudyRuns:
    """Write the folders of finished runs again, to the last byte as they were, but for weights and vocabulary."""
    with atomic_folder(folder) as temporary:
        for training in trainings:
            run = make_folder(temporary / training["name"])
            write_json(run / "config.json", training["config"])
            write_json(run / "results.json", training["results"])
            lines = [json.dumps(record) + "\n" for record in training["metrics"]]
            write_text(run / "metrics.jsonl", "".join(lines))
            digests = read_sealed_json(run / "results.json")["files"]
            check_files(run, {name: digests[name] for name in ("config.json", "metrics.jsonl")})
    runs = [folder / training["name"] for training in trainings]
    return StudyRuns(dataset, {"runs": tuple(Run.of(run, read_sealed_json(run / "results.json")) for run in runs)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder that `bash benchmarks/gpu.sh OUT` wrote")
    try:
        print(publish(parser.parse_args().out))
    except UWMLError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
