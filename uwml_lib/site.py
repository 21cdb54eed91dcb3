"""The pages: executed notebooks as HTML that reads offline, and an index with the tables.

MathJax comes as a file beside the pages (from the wheel django-static-mathjax), so nothing is fetched from the network.
"""

import html
import shutil
from importlib import resources
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from uwml_lib.config import REFERENCE, RELIABILITY, REPORTS, RUNS, preset
from uwml_lib.errors import UWMLError
from uwml_lib.explorer import build_explorer
from uwml_lib.files import atomic_folder, lock, make_folder, write_json, write_text
from uwml_lib.notebooks import all_notebooks, executed
from uwml_lib.progress import Say, say
from uwml_lib.reporting import (
    Experiment,
    load_experiment,
    reliability_text,
    report_folder,
    report_text,
    results_table,
    run_table,
    summary_json,
)

TEMPLATES = Path(__file__).parent / "templates"


def build(say: Say = say) -> Path:
    """Render every executed notebook, the weight explorer and the index; return the index's path."""
    with lock(REPORTS / "assets", say):
        return _build(say)


def _build(say: Say) -> Path:
    assets = make_folder(REPORTS / "assets")
    mathjax = resources.files("mathjax") / "static" / "mathjax" / "es5" / "tex-svg.js"
    with resources.as_file(mathjax) as file:
        if not (assets / file.name).exists():
            write_text(assets / file.name, file.read_text(encoding="utf-8"))
    exporter = HTMLExporter(template_name="kit", extra_template_basedirs=[str(TEMPLATES)])
    sections = []
    for name in sorted(
        (path.parent.name for path in RUNS.glob("*/experiment.json")), key=lambda name: (name != "scenes", name)
    ):
        try:
            experiment = load_experiment(name)
        except UWMLError as error:
            say(f"{name}: left out of the pages ({error})")
            continue
        notebooks = executed(report_folder(name))
        pages = [notebook.with_suffix(".html") for notebook in notebooks]
        for notebook, page in zip(notebooks, pages, strict=True):
            write_text(page, _render(exporter, notebook, pages))
        sections.append(_section(experiment, pages))
    build_explorer(REPORTS / "weight_explorer.html")
    index = REPORTS / "index.html"
    template = exporter.environment.get_template("page.html.j2")
    title = "Universal weighting metric learning"
    write_text(index, template.render(title=title, sections=sections, reliability=reliability_text()))
    return index


def publish(dataset: str) -> None:
    """Copy a comparison's executed notebooks, figures, table and per-run JSON to reports/reference.

    Raises UWMLError if a notebook is missing, or if the runs were made with other settings than the data set's preset.
    """
    experiment = load_experiment(dataset)
    source = report_folder(dataset)
    notebooks = executed(source)
    if len(notebooks) < len(all_notebooks()):
        raise UWMLError(f"{source}: found {len(notebooks)} executed notebooks, expected {len(all_notebooks())}")
    usual = preset(dataset).to_dict()
    for run in experiment.runs:
        other = [name for name in usual if name not in ("loss", "seed") and run.config[name] != usual[name]]
        if other:
            raise UWMLError(
                f"{run.folder.name}: not a run to publish, for it differs from the preset in {', '.join(other)}"
            )
    with lock(REFERENCE), atomic_folder(REFERENCE) as folder:
        if RELIABILITY.exists():  # measured apart from any run
            _copy(RELIABILITY, folder / RELIABILITY.name)
        for notebook in notebooks:
            _copy(notebook, folder / "notebooks" / notebook.name)
        shutil.copytree(source / "figures", folder / "figures")
        if (source / "durations.json").exists():
            _copy(source / "durations.json", folder / "durations.json")
        for run in experiment.all_runs:
            for name in ("config.json", "results.json", "metrics.jsonl"):
                _copy(run.folder / name, folder / "runs" / run.folder.name / name)
        runs = run_table(experiment).rename(index=lambda name: f"[{name}](runs/{name})")
        text = report_text(experiment, against_reference=False)
        write_text(folder / "table.md", f"{text}\n### Runs\n\n{runs.to_markdown()}\n")
        write_json(folder / "summary.json", summary_json(experiment))


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
    # Links between notebooks become links between pages.
    for cell in content.cells:
        if cell.cell_type == "markdown":
            for page in pages:
                cell.source = cell.source.replace(f"]({page.stem}.ipynb)", f"]({page.name})")
    return exporter.from_notebook_node(content, resources={"kit_navigation": navigation, "kit_root": "../"})[0]


def _section(experiment: Experiment, pages: list[Path]) -> dict[str, object]:
    link = f'<a href="runs/{experiment.dataset}/{{0}}/config.json">{{0}}</a>'
    paragraphs = [part for part in report_text(experiment).split("\n\n") if not part.startswith(("#", "|"))]
    return {
        "title": experiment.dataset,
        "table": results_table(experiment).reset_index().to_html(index=False, border=0),
        "runs": run_table(experiment)
        .rename(index=lambda name: link.format(name))
        .reset_index()
        .to_html(index=False, border=0, escape=False),
        "paragraphs": [html.escape(part.replace("**", "")) for part in paragraphs],
        "pages": [{"href": f"{page.parent.name}/{page.name}", "words": page.stem.replace("_", " ")} for page in pages],
    }
