"""The pages: executed notebooks as HTML that reads offline, and an index with the tables.

MathJax comes as a file beside the pages (from the wheel django-static-mathjax), so nothing is fetched from the network.
"""

import os
import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import nbformat
import pandas as pd
from nbconvert import HTMLExporter

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import EMBEDDED
from uwml_lib.reports.executed import executed
from uwml_lib.reports.findings import in_short
from uwml_lib.reports.records import reliability_text
from uwml_lib.reports.report import Report, paragraph_html
from uwml_lib.reports.site.explorer import build_explorer
from uwml_lib.reports.tables import COLUMNS
from uwml_lib.runs.run import Run
from uwml_lib.runs.study_runs import StudyRuns
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import lock, make_folder, read_json, read_sealed_json, write_text
from uwml_lib.support.paths import report_folder
from uwml_lib.support.progress import Say, duration, progress, say

TEMPLATES = Path(__file__).parent / "templates"
DATA_WORDS = {
    "scenes": "pictures of three to five coloured handwritten digits with captions that name some of them, made here",
    "clips": "short films in which such digits move, one after the other, made here",
}
"""Embedded data set -> what it is, for the landing page."""
MACHINE = {"injected-parameters", "machine"}
"""Tags of cells that no page shows."""
BENCHMARKS = (
    "loss", "step", "growth", "training", "training_full", "evaluation", "evaluation_full", "loading",
    "checks", "steps", "scoring", "epoch", "runs", "kernels",
)  # fmt: skip
"""What `make bench` and `make bench-full` write, and from "checks" on `make gpu`, in the order of the page."""


class Shown(Protocol):
    """What the pages need of a study."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def notebooks(self) -> tuple[str, ...]:
        """Stems of its notebooks."""

    @property
    def report(self) -> Callable[[StudyRuns], Report]:
        """What is said of its runs."""


Load = Callable[[str, str], StudyRuns]
Known = Mapping[tuple[str, str], StudyRuns]


def build(studies: Collection[Shown], load: Load, say: Say = say, known: Known = MappingProxyType({})) -> Path:
    """Render every executed notebook, the weight explorer and the index; return the index's path.

    load: a data set and a study's name -> its runs. known: (study, data set) -> runs that are loaded already.
    """
    with lock(paths.REPORTS / "assets", say):
        return _build(studies, load, say, known)


def _build(studies: Collection[Shown], load: Load, say: Say, known: Known) -> Path:
    _write_assets(make_folder(paths.REPORTS / "assets"))
    exporter = HTMLExporter(template_name="kit", extra_template_basedirs=[str(TEMPLATES)])
    benchmarks = _benchmarks()

    def write(template: str, page: Path, **words: Any) -> None:
        root = "../" * len(page.relative_to(paths.REPORTS).parts[:-1])
        text = exporter.environment.get_template(template).render(root=root, performance=bool(benchmarks), **words)
        write_text(page, text)

    sections: list[dict[str, object]] = []
    reports: list[Report] = []
    runs: dict[Path, Run] = {}
    datasets = {path.parent.name for study in studies for path in paths.RUNS.glob(f"*/{study.name}.json")}
    for dataset in sorted(datasets, key=lambda name: (name != "scenes", name)):
        navigation = _navigation(dataset, datasets) + [("performance.html", "How fast")] * bool(benchmarks)
        pages = _notebook_pages(exporter, dataset, navigation)
        for study, shown, report in _reports(dataset, studies, load, say, known):
            cards = [_card(page) for page in pages if page.stem in study.notebooks]
            sections.append(_section(study.name, dataset, report, cards))
            if not dataset.endswith("_smoke"):  # which finds nothing but that everything works
                reports.append(report)
            runs |= {run.folder: run for run in shown.all_runs}
    sections += _sweep_sections(say)
    build_explorer(paths.REPORTS / "weight_explorer.html")
    for run in progress([*runs.values()], "pages of runs"):
        write("run.html.j2", _run_page(run), **_run_words(run))
    for page in {*(paths.REPORTS / "pages").glob("*/*.html")} - {*map(_run_page, runs.values())}:
        page.unlink()  # of a run that no table shows any more
    if benchmarks:
        words = {"here": "performance", "title": "How fast, and why not faster", "devices": benchmarks}
        write("performance.html.j2", paths.REPORTS / "performance.html", **words)
    index = paths.REPORTS / "index.html"
    write("landing.html.j2", index, **_landing_words(sections, reports, runs.values(), datasets))
    return index


def _write_assets(folder: Path) -> None:
    mathjax = resources.files("mathjax") / "static" / "mathjax" / "es5" / "tex-svg.js"
    with resources.as_file(mathjax) as script:
        if not (folder / script.name).exists():
            write_text(folder / script.name, script.read_text(encoding="utf-8"))
    for asset in ("kit.css", "kit.js"):
        write_text(folder / asset, (TEMPLATES / "kit" / asset).read_text(encoding="utf-8"))


def _notebook_pages(exporter: HTMLExporter, dataset: str, navigation: Sequence[tuple[str, str]]) -> list[Path]:
    """Write the page of each executed notebook; return where they are."""
    notebooks = executed(report_folder(dataset))
    pages = [notebook.with_suffix(".html") for notebook in notebooks]
    for notebook, page in progress([*zip(notebooks, pages, strict=True)], f"{dataset}: pages of notebooks"):
        write_text(page, _render(exporter, notebook, navigation))
    return pages


def _reports(
    dataset: str, studies: Collection[Shown], load: Load, say: Say, known: Known
) -> Iterator[tuple[Shown, StudyRuns, Report]]:
    """Each study of a data set, its runs and its report; what cannot be loaded is said and left out."""
    for study in studies:
        if not (paths.RUNS / dataset / f"{study.name}.json").exists():
            continue
        try:
            shown = known.get((study.name, dataset)) or load(dataset, study.name)
            report = study.report(shown)
        except UWMLError as error:
            say(f"{dataset}: left out of the pages ({error})")
            continue
        yield study, shown, report


def _landing_words(
    sections: list[dict[str, object]], reports: Sequence[Report], runs: Iterable[Run], datasets: Collection[str]
) -> dict[str, Any]:
    return {
        "here": "index", "title": "Universal weighting metric learning, reproduced", "curves": _weight_curves(),
        "findings": [sentence for report in reports for sentence in report.findings],
        "in_short": in_short(reports), "sections": sections,
        "data": {
            name: f"{words} ({EMBEDDED[name].train:,} to train on)"
            for name, words in DATA_WORDS.items()
            if name in datasets
        },
        "reliability": paragraph_html(reliability_text()),
        "provenance": next((run.results["provenance"] for run in runs), None),
    }  # fmt: skip


def _weight_curves() -> str | None:
    """The figure of notebook 4, of these reports or else of the published ones."""
    places = [folder / "figures" / "weight_curves.png" for folder in (report_folder("scenes"), paths.REFERENCE)]
    return next((Path(os.path.relpath(place, paths.REPORTS)).as_posix() for place in places if place.exists()), None)


def _run_page(run: Run) -> Path:
    return paths.REPORTS / "pages" / run.config.dataset / f"{run.folder.name}.html"


def _run_words(run: Run) -> dict[str, Any]:
    """What the page of a run says: recalls, curves, the settings that are not the defaults, where it comes from."""
    history, usual, come_from = run.history(), asdict(ExperimentConfig()), run.results["provenance"]
    metrics = pd.DataFrame([[f"{run.metrics[name]:.1f}" for name in COLUMNS]], columns=[*COLUMNS.values()])
    steps, epochs = (history[history["kind"] == kind] for kind in ("step", "epoch"))
    drawn = [
        (steps, "loss", "loss"),
        (epochs, "dev_rsum", f"rsum on {run.config.chosen_by}"),
        (steps, "informative_share", "share of anchors that inform"),
        (steps, "gradient_norm", "length of the gradient"),
    ]
    last, warmup = run.config.epochs, run.config.warmup_epochs
    return {
        "title": run.folder.name, "words": f"{run.model}, {run.config.loss} loss, seed {run.seed}",
        "files": Path(os.path.relpath(run.folder, _run_page(run).parent)).as_posix(),
        "metrics": metrics.to_html(index=False, border=0), "epochs": last,
        "curves": [curve | {"warmup": 320 * warmup / last} for curve in map(_curve, *zip(*drawn, strict=True))],
        "settings": [(name, value) for name, value in run.config.to_dict().items() if value != usual[name]],
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
    folders = sorted({path.parent for path in paths.PERFORMANCE.glob("*/*.json")})
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
        "bounds": paragraph_html(found["bounds"]),
        "tables": {title: pd.DataFrame(rows).to_html(index=False, border=0) for title, rows in tables.items()},
        "figure": Path(os.path.relpath(figure, paths.REPORTS)).as_posix() if found["alt"] else "",
    }


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
    # What is for the machine alone: papermill's parameters, and cells that say so, such as numbers for other programs.
    content.cells = [cell for cell in content.cells if not MACHINE & {*cell.metadata.get("tags", ())}]
    title = content.cells[0].source.partition("\n")[0].removeprefix("# ")
    words = {
        "kit_navigation": [{"href": f"../{page}", "words": name, "here": page == here} for page, name in navigation],
        "kit_root": "../", "metadata": {"name": title},
    }  # fmt: skip
    return exporter.from_notebook_node(content, resources=words)[0]


def _section(name: str, dataset: str, report: Report, cards: list[dict[str, str]]) -> dict[str, object]:
    durations = report_folder(dataset) / "durations.json"
    noted = read_json(durations).get(name, {"seconds": {}}) if durations.exists() else {"seconds": {}}
    seconds = [(step, duration(value)) for step, value in noted["seconds"].items()]
    return report.to_html(f"pages/{dataset}/{{0}}.html") | {"pages": cards, "seconds": seconds}


def _card(page: Path) -> dict[str, str]:
    """A notebook's link, its title, and the beginning of what it says of itself."""
    title, _, rest = nbformat.read(page.with_suffix(".ipynb"), as_version=4).cells[0].source.partition("\n\n")
    about = textwrap.shorten(re.sub(r"[*`$]", "", rest.partition("\n\n")[0]), 150, placeholder=" ...")
    return {"href": f"{page.parent.name}/{page.name}", "words": title.removeprefix("# "), "about": about}


def _sweep_sections(say: Say) -> list[dict[str, object]]:
    sections = []
    for path in sorted(paths.SWEEPS.glob("*/*/sweep.json")):
        try:
            sections.append(_sweep_section(path))
        except UWMLError as error:
            say(f"{path.parent.name}: left out of the pages ({error})")
    return sections


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
            "path": Path(os.path.relpath(path.with_suffix(".png"), paths.REPORTS)).as_posix(),
            "alt": f"rsum on {found['chosen_by']} against {', '.join(found['varied'])}: the numbers of the table",
        },
        "chosen": chosen.to_html(index=False, border=0),
        "runs": runs.to_html(index=False, border=0, escape=False),
        "notes": [paragraph_html(sentence.replace("**", "")) for sentence in found["sentences"]],
        "pages": [],
    }
