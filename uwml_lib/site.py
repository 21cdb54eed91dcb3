"""The pages: executed notebooks as HTML that reads offline, and an index with the tables.

MathJax comes as a file beside the pages (from the wheel django-static-mathjax), so nothing is fetched from the network.
"""

import html
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from nbconvert import HTMLExporter

from uwml_lib.config import PERFORMANCE, REFERENCE, RELIABILITY, REPORTS, RUNS, SWEEPS, preset
from uwml_lib.datasets import EMBEDDED
from uwml_lib.errors import UWMLError
from uwml_lib.explorer import build_explorer
from uwml_lib.files import atomic_folder, lock, make_folder, read_json, read_sealed_json, write_json, write_text
from uwml_lib.notebooks import EXPERIMENTS, all_notebooks, executed, is_current
from uwml_lib.progress import Say, say
from uwml_lib.reporting import (
    FILES,
    Experiment,
    ExperimentName,
    fidelity_table,
    load_experiment,
    models_table,
    reference_folder,
    reliability_text,
    report_folder,
    report_text,
    results_table,
    run_table,
    summary_json,
)

TEMPLATES = Path(__file__).parent / "templates"
TABLES = {"fidelity": fidelity_table, "models": models_table, "videos": models_table}
"""Make target -> its table, if not that of losses."""
BENCHMARKS = ("loss", "step", "growth", "training", "training_full", "evaluation", "evaluation_full", "loading")
"""What `make bench` and `make bench-full` write, in the order of the page."""


def build(say: Say = say) -> Path:
    """Render every executed notebook, the weight explorer and the index; return the index's path."""
    with lock(REPORTS / "assets", say):
        return _build(say)


def _build(say: Say) -> Path:
    assets = make_folder(REPORTS / "assets")
    mathjax = resources.files("mathjax") / "static" / "mathjax" / "es5" / "tex-svg.js"
    with resources.as_file(mathjax) as script:
        if not (assets / script.name).exists():
            write_text(assets / script.name, script.read_text(encoding="utf-8"))
    exporter = HTMLExporter(template_name="kit", extra_template_basedirs=[str(TEMPLATES)])
    sections = []
    datasets = {path.parent.name for file in FILES.values() for path in RUNS.glob(f"*/{file}")}
    for dataset in sorted(datasets, key=lambda name: (name != "scenes", name)):
        notebooks = executed(report_folder(dataset))
        pages = [notebook.with_suffix(".html") for notebook in notebooks]
        for notebook, page in zip(notebooks, pages, strict=True):
            write_text(page, _render(exporter, notebook, pages))
        for name, file in FILES.items():
            if (RUNS / dataset / file).exists():
                try:
                    experiment = load_experiment(dataset, name)
                except UWMLError as error:
                    say(f"{dataset}: left out of the pages ({error})")
                    continue
                shown = [page for page in pages if EXPERIMENTS.get(page.stem, "reproduce") == name]
                sections.append(_section(experiment, name, shown))
    for path in sorted(SWEEPS.glob("*/*/sweep.json")):
        try:
            sections.append(_sweep_section(path))
        except UWMLError as error:
            say(f"{path.parent.name}: left out of the pages ({error})")
    build_explorer(REPORTS / "weight_explorer.html")
    index = REPORTS / "index.html"
    template = exporter.environment.get_template("page.html.j2")
    title = "Universal weighting metric learning"
    benchmarks = _benchmarks()
    if benchmarks:
        page = exporter.environment.get_template("performance.html.j2")
        write_text(REPORTS / "performance.html", page.render(title="How fast, and why not faster", devices=benchmarks))
    words = {
        "title": title,
        "sections": sections,
        "reliability": _html(reliability_text()),
        "performance": bool(benchmarks),
    }
    write_text(index, template.render(words))
    return index


def _benchmarks() -> list[dict[str, Any]]:
    """What the benchmarks found on each kind of device, part by part in order."""
    folders = sorted({path.parent for path in PERFORMANCE.glob("*/*.json")})
    parts = {
        folder.name: [_benchmark(folder / f"{name}.json") for name in BENCHMARKS if (folder / f"{name}.json").exists()]
        for folder in folders
    }
    return [{"name": name, "parts": found} for name, found in parts.items()]


def _benchmark(path: Path) -> dict[str, Any]:
    found = read_json(path)
    return {
        **found,
        "bounds": _html(found["bounds"]),
        "table": pd.DataFrame(found["rows"]).to_html(index=False, border=0),
        "figure": Path(os.path.relpath(path.with_suffix(".png"), REPORTS)).as_posix(),
    }


def _html(text: str) -> str:
    """Return a sentence of Markdown for a page: what stands in backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text))


def publish(dataset: str) -> None:
    """Copy a comparison's executed notebooks, figures, table and per-run JSON to reports/reference.

    Raises UWMLError if a notebook is missing or shows something else, or if the runs were made with other settings than
    the data set's preset.
    """
    with lock(report_folder(dataset)):  # a pipeline may be at work on it
        _publish(dataset)


def _publish(dataset: str) -> None:
    others = [name for name, file in FILES.items() if name != "reproduce" and (RUNS / dataset / file).exists()]
    experiments: dict[ExperimentName, Experiment] = {name: load_experiment(dataset, name) for name in others}
    if "videos" not in experiments:  # else there are no others
        experiments = {"reproduce": load_experiment(dataset), **experiments}
    if dataset not in EMBEDDED:
        _check_settings(experiments["reproduce"])
        _publish_numbers(dataset, experiments)
        return
    source = report_folder(dataset)
    for name, shown in experiments.items():
        if old := _not_current(all_notebooks(name), shown):
            raise UWMLError(f"{source / old.name}: missing, or shows other runs or code; run `make {name}` again")
    if "reproduce" in experiments:
        _check_settings(experiments["reproduce"])
    with lock(REFERENCE), atomic_folder(reference_folder(dataset)) as folder:
        if folder.parent == REFERENCE.parent:
            _keep_others(folder)
        for notebook in (notebook for name in experiments for notebook in all_notebooks(name)):
            _copy(source / notebook.name, folder / "notebooks" / notebook.name)
        shutil.copytree(source / "figures", folder / "figures")
        durations = source / "durations.json"
        runs = [run.folder.name for run in experiments["reproduce"].all_runs] if "reproduce" in experiments else None
        if durations.exists() and read_json(durations)["runs"] == runs:
            _copy(durations, folder / durations.name)
        _write_numbers(experiments, folder)


def _keep_others(folder: Path) -> None:
    """Copy what is in reports/reference and not of `scenes`: measured apart from any run, or of other data sets."""
    if RELIABILITY.exists():
        _copy(RELIABILITY, folder / RELIABILITY.name)
    if PERFORMANCE.exists():
        shutil.copytree(PERFORMANCE, folder / PERFORMANCE.name)
    for other in REFERENCE.glob("*/runs"):
        shutil.copytree(other.parent, folder / other.parent.name)


def _publish_numbers(dataset: str, experiments: Mapping[ExperimentName, Experiment]) -> None:
    """Publish what shows no picture and no caption: only the embedded data may be passed on."""
    source = report_folder(dataset)
    with lock(REFERENCE), atomic_folder(reference_folder(dataset)) as folder:
        _write_numbers(experiments, folder)
        _copy(source / "figures" / "recall_curves.png", folder / "recall_curves.png")
        if (baseline := source / "linear_cca.json").exists():
            _copy(baseline, folder / baseline.name)


def _check_settings(experiment: Experiment) -> None:
    usual = preset(experiment.dataset).to_dict()
    for run in experiment.runs:
        other = [name for name in usual if name not in ("loss", "seed") and run.config[name] != usual[name]]
        if other:
            raise UWMLError(
                f"{run.folder.name}: not a run to publish, for it differs from the preset in {', '.join(other)}"
            )


def _write_numbers(experiments: Mapping[ExperimentName, Experiment], folder: Path) -> None:
    """Write tables, the summary and the runs behind them, but for those that were only for tuning."""
    for name, experiment in experiments.items():
        if name == "reproduce":
            write_text(folder / "table.md", f"{report_text(experiment, False)}\n### Runs\n\n{_linked(experiment)}\n")
            write_json(folder / "summary.json", summary_json(experiment))
        else:
            table = TABLES.get(name, results_table)(experiment).to_markdown()
            write_text(folder / f"{name}.md", f"{table}\n\n### Runs\n\n{_linked(experiment)}\n")
    kept = [replace(item, tuning=(), coefficient_tuning=()).all_runs for item in experiments.values()]
    for run in {run.folder: run for runs in kept for run in runs}.values():
        for file in ("config.json", "results.json", "metrics.jsonl"):
            _copy(run.folder / file, folder / "runs" / run.folder.name / file)


def _not_current(notebooks: Sequence[Path], experiment: Experiment) -> Path | None:
    """The first of the notebooks whose executed copy does not show this experiment as this library does."""
    parameters = {"DATASET": experiment.dataset, "DATA_ROOT": experiment.runs[0].config["data_root"]}
    folder = report_folder(experiment.dataset)
    stale = (notebook for notebook in notebooks if not is_current(notebook, parameters, folder, experiment.digest))
    return next(stale, None)


def _linked(experiment: Experiment) -> str:
    """The table of runs in Markdown, with links; those that were only for tuning are left out."""
    runs = run_table(replace(experiment, tuning=(), coefficient_tuning=()))
    return runs.rename(index=lambda name: f"[{name}](runs/{name})").to_markdown()


def _copy(source: Path, target: Path) -> None:
    make_folder(target.parent)
    shutil.copyfile(source, target)


def _render(exporter: HTMLExporter, notebook: Path, pages: list[Path]) -> str:
    content = nbformat.read(notebook, as_version=4)
    place = pages.index(notebook.with_suffix(".html"))
    navigation = [
        {"href": page.name, "words": page.stem.replace("_", " "), "here": number == place}
        for number, page in enumerate(pages)
    ]
    names = {page.stem: page.name for page in pages}

    def link(match: re.Match[str]) -> str:  # to a page; in plain words to a notebook that was not executed
        words, name = match.groups()
        return f"[{words}]({names[name]})" if name in names else words

    for cell in content.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\[([^\]]+)\]\((\w+)\.ipynb\)", link, cell.source)
    return exporter.from_notebook_node(content, resources={"kit_navigation": navigation, "kit_root": "../"})[0]


def _section(experiment: Experiment, name: ExperimentName, pages: list[Path]) -> dict[str, object]:
    link = f'<a href="runs/{experiment.dataset}/{{0}}/config.json">{{0}}</a>'
    text = report_text(experiment) if name == "reproduce" else ""
    titles = {
        "reproduce": "", "compare": ": every loss, tuned alike", "fidelity": ": habits of the released code",
        "models": ": other models", "videos": ": models of sequences",
    }  # fmt: skip
    table = TABLES.get(name, results_table)(experiment)
    paragraphs = [part for part in text.split("\n\n") if part and not part.startswith(("#", "|"))]
    return {
        "title": experiment.dataset + titles[name],
        "table": table.reset_index().to_html(index=False, border=0),
        "runs": run_table(experiment)
        .rename(index=lambda name: link.format(name))
        .reset_index()
        .to_html(index=False, border=0, escape=False),
        "paragraphs": [_html(part.replace("**", "")) for part in paragraphs],
        "pages": [{"href": f"{page.parent.name}/{page.name}", "words": page.stem.replace("_", " ")} for page in pages],
    }


def _sweep_section(path: Path) -> dict[str, object]:
    """What a sweep found: its settings, its figure, the chosen one's numbers, its runs."""
    found = read_sealed_json(path)
    settings, chosen, runs = (pd.DataFrame(found["tables"][name]) for name in ("settings", "chosen", "runs"))
    link = f'<a href="runs/{found["dataset"]}/{{0}}/config.json">{{0}}</a>'
    runs["run folder"] = runs["run folder"].map(link.format)
    return {
        "title": f"{found['dataset']}: sweep {found['name']}",
        "table": settings.to_html(index=False, border=0),
        "figure": {
            "path": Path(os.path.relpath(path.with_suffix(".png"), REPORTS)).as_posix(),
            "alt": f"rsum on {found['chosen_by']} against {', '.join(found['varied'])}: the numbers of the table",
        },
        "chosen": chosen.to_html(index=False, border=0),
        "runs": runs.to_html(index=False, border=0, escape=False),
        "paragraphs": [_html(sentence.replace("**", "")) for sentence in found["sentences"]],
        "pages": [],
    }
