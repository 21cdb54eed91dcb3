"""The pages: executed notebooks as HTML that reads offline, and an index with the tables.

MathJax comes as a file beside the pages (from the wheel django-static-mathjax), so nothing is fetched from the network.
"""

import html
import shutil
from importlib import resources
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from uwml_lib.config import REFERENCE, REPORTS, RUNS
from uwml_lib.files import atomic_folder, write_json, write_text
from uwml_lib.progress import Say, say
from uwml_lib.reporting import Experiment, load_experiment, report_folder, report_text, results_table, summary_json

TEMPLATES = Path(__file__).parent / "templates"


def build(say: Say = say) -> Path:
    """Render every executed notebook and the index; return the index's path."""
    assets = REPORTS / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    mathjax = resources.files("mathjax") / "static" / "mathjax" / "es5" / "tex-svg.js"
    with resources.as_file(mathjax) as file:
        if not (assets / file.name).exists():
            shutil.copyfile(file, assets / file.name)
    exporter = HTMLExporter(template_name="kit", extra_template_basedirs=[str(TEMPLATES)])
    sections = []
    for path in sorted(
        RUNS.glob("*/experiment.json"), key=lambda path: (path.parent.name != "scenes", path.parent.name)
    ):
        experiment = load_experiment(path.parent.name)
        notebooks = sorted(report_folder(experiment.dataset).glob("[0-9][0-9]_*[!d].ipynb"))
        pages = [notebook.with_suffix(".html") for notebook in notebooks]
        for notebook, page in zip(notebooks, pages, strict=True):
            if not page.exists() or page.stat().st_mtime < notebook.stat().st_mtime:
                say(f"{notebook.stem}: rendering")
                write_text(page, _render(exporter, notebook, pages))
        sections.append(_section(experiment, pages))
    index = REPORTS / "index.html"
    environment = exporter.environment
    write_text(
        index,
        environment.get_template("page.html.j2").render(title="Universal weighting metric learning", sections=sections),
    )
    return index


def publish(dataset: str) -> None:
    """Copy a comparison's executed notebooks, figures, table and per-run JSON to reports/reference."""
    experiment = load_experiment(dataset)
    with atomic_folder(REFERENCE) as folder:
        for notebook in sorted(report_folder(dataset).glob("[0-9][0-9]_*[!d].ipynb")):
            (folder / "notebooks").mkdir(exist_ok=True)
            shutil.copyfile(notebook, folder / "notebooks" / notebook.name)
        figures = report_folder(dataset) / "figures"
        if figures.is_dir():
            shutil.copytree(figures, folder / "figures")
        durations = report_folder(dataset) / "durations.json"
        if durations.exists():
            shutil.copyfile(durations, folder / durations.name)
        for run in (*experiment.runs, *experiment.without_warmup):
            target = folder / "runs" / run.folder.name
            target.mkdir(parents=True)
            for name in ("config.json", "results.json", "metrics.jsonl"):
                shutil.copyfile(run.folder / name, target / name)
        write_text(folder / "table.md", report_text(experiment))
        write_json(folder / "summary.json", summary_json(experiment))


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
    paragraphs = [part for part in report_text(experiment).split("\n\n") if not part.startswith(("#", "|"))]
    return {
        "title": experiment.dataset,
        "table": results_table(experiment).reset_index().to_html(index=False, border=0),
        "paragraphs": [html.escape(part.replace("**", "")) for part in paragraphs],
        "pages": [{"href": f"{page.parent.name}/{page.name}", "words": page.stem.replace("_", " ")} for page in pages],
    }
