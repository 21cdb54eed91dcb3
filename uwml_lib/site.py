"""The pages: executed notebooks as HTML that reads offline, and an index with the tables.

MathJax comes as a file beside the pages (from the wheel django-static-mathjax), so nothing is fetched from the network.
"""

import html
import os
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from nbconvert import HTMLExporter

from uwml_lib.config import PERFORMANCE, REFERENCE, RELIABILITY, REPORTS, RUNS, SWEEPS, ExperimentConfig, preset
from uwml_lib.datasets import EMBEDDED
from uwml_lib.errors import UWMLError
from uwml_lib.explorer import build_explorer
from uwml_lib.files import atomic_folder, lock, make_folder, read_json, read_sealed_json, write_json, write_text
from uwml_lib.findings import findings, in_short
from uwml_lib.notebooks import EXPERIMENTS, all_notebooks, executed, is_current
from uwml_lib.progress import Say, duration, progress, say
from uwml_lib.reporting import (
    COLUMNS,
    FILES,
    Experiment,
    ExperimentName,
    Run,
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
DATA_WORDS = {
    "scenes": "pictures of three to five coloured handwritten digits with captions that name some of them, made here",
    "clips": "short films in which such digits move, one after the other, made here",
}
"""Embedded data set -> what it is, for the landing page."""
TABLES = {"fidelity": fidelity_table, "models": models_table, "videos": models_table}
"""Make target -> its table, if not that of losses."""
BENCHMARKS = (
    "loss", "step", "growth", "training", "training_full", "evaluation", "evaluation_full", "loading",
    "checks", "steps", "scoring", "epoch", "runs", "kernels",
)  # fmt: skip
"""What `make bench` and `make bench-full` write, and from "checks" on `make gpu`, in the order of the page."""


def table_of(name: ExperimentName, experiment: Experiment) -> pd.DataFrame:
    """The table of what a make target ran."""
    return TABLES.get(name, results_table)(experiment)


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
    for asset in ("kit.css", "kit.js"):
        write_text(assets / asset, (TEMPLATES / "kit" / asset).read_text(encoding="utf-8"))
    exporter = HTMLExporter(template_name="kit", extra_template_basedirs=[str(TEMPLATES)])
    benchmarks = _benchmarks()

    def write(template: str, page: Path, **words: Any) -> None:
        root = "../" * len(page.relative_to(REPORTS).parts[:-1])
        text = exporter.environment.get_template(template).render(root=root, performance=bool(benchmarks), **words)
        write_text(page, text)

    sections: list[dict[str, object]] = []
    found: list[str] = []
    experiments: list[tuple[ExperimentName, Experiment]] = []
    runs: dict[Path, Run] = {}
    datasets = {path.parent.name for file in FILES.values() for path in RUNS.glob(f"*/{file}")}
    for dataset in sorted(datasets, key=lambda name: (name != "scenes", name)):
        notebooks = executed(report_folder(dataset))
        pages = [notebook.with_suffix(".html") for notebook in notebooks]
        navigation = _navigation(dataset, datasets) + [("performance.html", "How fast")] * bool(benchmarks)
        for notebook, page in progress([*zip(notebooks, pages, strict=True)], f"{dataset}: pages of notebooks"):
            write_text(page, _render(exporter, notebook, navigation))
        for name, file in FILES.items():
            if (RUNS / dataset / file).exists():
                try:
                    experiment = load_experiment(dataset, name)
                except UWMLError as error:
                    say(f"{dataset}: left out of the pages ({error})")
                    continue
                shown = [page for page in pages if EXPERIMENTS.get(page.stem, "reproduce") == name]
                sections.append(_section(experiment, name, shown))
                if not dataset.endswith("_smoke"):  # which finds nothing but that everything works
                    found += findings(name, experiment)
                    experiments.append((name, experiment))
                runs |= {run.folder: run for run in experiment.all_runs}
    for path in sorted(SWEEPS.glob("*/*/sweep.json")):
        try:
            sections.append(_sweep_section(path))
        except UWMLError as error:
            say(f"{path.parent.name}: left out of the pages ({error})")
    build_explorer(REPORTS / "weight_explorer.html")
    for run in progress([*runs.values()], "pages of runs"):
        write("run.html.j2", _run_page(run), **_run_words(run))
    for page in {*(REPORTS / "pages").glob("*/*.html")} - {*map(_run_page, runs.values())}:
        page.unlink()  # of a run that no table shows any more
    if benchmarks:
        title = "How fast, and why not faster"
        write("performance.html.j2", REPORTS / "performance.html", here="performance", title=title, devices=benchmarks)
    title = "Universal weighting metric learning, reproduced"
    write(
        "landing.html.j2", REPORTS / "index.html", here="index", title=title, curves=_weight_curves(),
        findings=found, in_short=in_short(experiments), sections=sections,
        data={
            name: f"{words} ({EMBEDDED[name].train:,} to train on)"
            for name, words in DATA_WORDS.items()
            if name in datasets
        },
        reliability=_html(reliability_text()),
        provenance=next((run.results["provenance"] for run in runs.values()), None),
    )  # fmt: skip
    return REPORTS / "index.html"


def _weight_curves() -> str | None:
    """The figure of notebook 4, of these reports or else of the published ones."""
    places = [folder / "figures" / "weight_curves.png" for folder in (report_folder("scenes"), REFERENCE)]
    return next((Path(os.path.relpath(place, REPORTS)).as_posix() for place in places if place.exists()), None)


def _run_page(run: Run) -> Path:
    return REPORTS / "pages" / run.config["dataset"] / f"{run.folder.name}.html"


def _run_words(run: Run) -> dict[str, Any]:
    """What the page of a run says: recalls, curves, the settings that are not the defaults, where it comes from."""
    history, usual, come_from = run.history(), asdict(ExperimentConfig()), run.results["provenance"]
    metrics = pd.DataFrame([[f"{run.metrics[name]:.1f}" for name in COLUMNS]], columns=[*COLUMNS.values()])
    steps, epochs = (history[history["kind"] == kind] for kind in ("step", "epoch"))
    drawn = [
        (steps, "loss", "loss"),
        (epochs, "dev_rsum", f"rsum on {run.chosen_by}"),
        (steps, "informative_share", "share of anchors that inform"),
        (steps, "gradient_norm", "length of the gradient"),
    ]
    last, warmup = run.config["epochs"], run.config["warmup_epochs"]
    return {
        "title": run.folder.name, "words": f"{run.model}, {run.config['loss']} loss, seed {run.config['seed']}",
        "files": Path(os.path.relpath(run.folder, _run_page(run).parent)).as_posix(),
        "metrics": metrics.to_html(index=False, border=0), "epochs": last,
        "curves": [curve | {"warmup": 320 * warmup / last} for curve in map(_curve, *zip(*drawn, strict=True))],
        "settings": [(name, value) for name, value in run.config.items() if value != usual.get(name)],
        "provenance": [
            (name, come_from[name]) for name in ("command", "commit", "clean_tree", "machine", "python", "started")
        ] + list(come_from["versions"].items()),
    }  # fmt: skip


def _curve(lines: pd.DataFrame, column: str, label: str, width: int = 320, height: int = 150) -> dict[str, Any]:
    """A line for SVG through the readings of a column, from left to right over all epochs."""
    values = lines[column].astype(float)
    low, high = values.min(), values.max()
    x = width * lines["epochs_done"] / lines["epochs_done"].max()
    y = 20 + (height - 40) * (high - values) / ((high - low) or 1)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True) if b == b)
    ends = {"first": values.iloc[0], "last": values.iloc[-1], "low": low, "high": high}
    return {"label": label, "points": points, **{name: f"{value:.4g}" for name, value in ends.items()}}


def _benchmarks() -> list[dict[str, Any]]:
    """What the benchmarks found on each kind of device, part by part in order."""
    folders = sorted({path.parent for path in PERFORMANCE.glob("*/*.json")})
    parts = {
        folder.name: [_benchmark(folder / f"{name}.json") for name in BENCHMARKS if (folder / f"{name}.json").exists()]
        for folder in folders
    }
    return [{"name": name, "parts": found} for name, found in parts.items()]


def _benchmark(path: Path) -> dict[str, Any]:
    found, figure = read_json(path), path.with_suffix(".png")
    tables = found["tables"] if "tables" in found else {found["title"]: found["rows"]}
    return {
        **found,
        "bounds": _html(found["bounds"]),
        "tables": {title: pd.DataFrame(rows).to_html(index=False, border=0) for title, rows in tables.items()},
        "figure": Path(os.path.relpath(figure, REPORTS)).as_posix() if found["alt"] else "",
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
    source, embedded = report_folder(dataset), dataset in EMBEDDED
    for name, shown in experiments.items() if embedded else ():
        if old := _not_current(all_notebooks(name), shown):
            raise UWMLError(f"{source / old.name}: missing, or shows other runs or code; run `make {name}` again")
    if "reproduce" in experiments:
        _check_settings(experiments["reproduce"])
    if not embedded:
        _publish_numbers(dataset, experiments)
        return
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
        for file in (source / "figures" / "recall_curves.png", source / "linear_cca.json"):
            if file.exists():
                _copy(file, folder / file.name)


def _check_settings(experiment: Experiment) -> None:
    usual, new = preset(experiment.dataset).to_dict(), asdict(ExperimentConfig())
    for run in experiment.runs:
        values = new | run.config  # a run from before a setting existed has its default
        other = [name for name in usual if name not in ("loss", "seed") and values[name] != usual[name]]
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
            table = table_of(name, experiment).to_markdown()
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


def _navigation(dataset: str, datasets: Iterable[str]) -> list[tuple[str, str]]:
    """Page and title of every notebook, of this data set or, where that has none, of another one of its size."""
    small = dataset.endswith("_smoke")
    others = [name for name in sorted(datasets) if name != dataset and name.endswith("_smoke") == small]
    found: dict[str, str] = {}
    for name in (dataset, *others):
        for notebook in executed(report_folder(name)):
            found.setdefault(notebook.stem, f"{name}/{notebook.stem}.html")
    return [(found[stem], stem.replace("_", " ")) for stem in sorted(found)]


def _render(exporter: HTMLExporter, notebook: Path, navigation: Sequence[tuple[str, str]]) -> str:
    content = nbformat.read(notebook, as_version=4)
    here = f"{notebook.parent.name}/{notebook.stem}.html"
    pages = {Path(page).stem: f"../{page}" for page, _ in navigation}

    def link(match: re.Match[str]) -> str:  # to a page; in plain words to a notebook that was not executed
        words, name = match.groups()
        return f"[{words}]({pages[name]})" if name in pages else words

    for cell in content.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\[([^\]]+)\]\((\w+)\.ipynb\)", link, cell.source)
    # What is for the machine alone: papermill's parameters, and the numbers for other programs.
    content.cells = [
        cell
        for cell in content.cells
        if "injected-parameters" not in cell.metadata.get("tags", ()) and not cell.source.startswith("record(")
    ]
    title = content.cells[0].source.partition("\n")[0].removeprefix("# ")
    words = {
        "kit_navigation": [{"href": f"../{page}", "words": name, "here": page == here} for page, name in navigation],
        "kit_root": "../", "metadata": {"name": title},
    }  # fmt: skip
    return exporter.from_notebook_node(content, resources=words)[0]


def _section(experiment: Experiment, name: ExperimentName, pages: list[Path]) -> dict[str, object]:
    text = report_text(experiment) if name == "reproduce" else ""
    titles = {
        "reproduce": ": two losses",
        "compare": ": every loss, tuned alike",
        "fidelity": ": habits of the released code",
        "models": ": other models",
        "videos": ": models of sequences",
    }
    table = table_of(name, experiment)
    paragraphs = [part for part in text.split("\n\n") if part and not part.startswith(("#", "|"))]
    links = {run.folder.name: _run_page(run).relative_to(REPORTS).as_posix() for run in experiment.all_runs}
    durations = report_folder(experiment.dataset) / "durations.json"
    seconds = read_json(durations)["seconds"] if name == "reproduce" and durations.exists() else {}
    return {
        "title": experiment.dataset + titles[name],
        "table": table.reset_index().to_html(index=False, border=0),
        "count": len(links),
        "runs": run_table(experiment)
        .rename(index=lambda run: f'<a href="{links[run]}">{run}</a>')
        .reset_index()
        .to_html(index=False, border=0, escape=False),
        "paragraphs": [_html(part.replace("**", "")) for part in paragraphs],
        "pages": [_card(page) for page in pages],
        "seconds": [(step, duration(value)) for step, value in seconds.items()],
    }


def _card(page: Path) -> dict[str, str]:
    """A notebook's link, its title, and the beginning of what it says of itself."""
    title, _, rest = nbformat.read(page.with_suffix(".ipynb"), as_version=4).cells[0].source.partition("\n\n")
    about = textwrap.shorten(re.sub(r"[*`$]", "", rest.partition("\n\n")[0]), 150, placeholder=" ...")
    return {"href": f"{page.parent.name}/{page.name}", "words": title.removeprefix("# "), "about": about}


def _sweep_section(path: Path) -> dict[str, object]:
    """What a sweep found: its settings, its figure, the chosen one's numbers, its runs."""
    found = read_sealed_json(path)
    settings, chosen, runs = (pd.DataFrame(found["tables"][name]) for name in ("settings", "chosen", "runs"))
    link = f'<a href="runs/{found["dataset"]}/{{0}}/config.json">{{0}}</a>'
    runs["run folder"] = runs["run folder"].map(link.format)
    return {
        "title": f"{found['dataset']}: sweep {found['name']}",
        "count": len(runs),
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
