"""The pages: executed notebooks as HTML that reads offline, tables, runs, benchmarks, and an index of them.

MathJax comes as a file beside the pages (from the wheel django-static-mathjax), so nothing is fetched from the network.
"""

import os
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import nbformat
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from nbconvert import HTMLExporter

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import EMBEDDED
from uwml_lib.reports.records import reliability_text
from uwml_lib.reports.report import Report, in_short, paragraph_html, table_html
from uwml_lib.reports.site.explorer import build_explorer
from uwml_lib.reports.tables import COLUMNS
from uwml_lib.runs import Run, StudyRuns, load_study
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import lock, read_json, read_sealed_json, write_text
from uwml_lib.support.paths import report_folder
from uwml_lib.support.progress import Say, duration, progress, say

TEMPLATES = Path(__file__).parent / "templates"
DATA_WORDS = {
    "scenes": "pictures of three to five coloured handwritten digits with captions that name some of them, made here",
    "clips": "short films in which such digits move, one after the other, made here",
}
"""Embedded data set -> what it is, for the landing page."""
MACHINE = {"injected-parameters", "machine"}
"""Tags of cells that no page shows: papermill's parameters, and what is for other programs, such as numbers."""
BENCHMARKS = (
    "loss", "embeddings", "step", "growth", "training", "training_full", "evaluation", "evaluation_full", "loading",
    "checks", "steps", "scoring", "epoch", "runs", "kernels",
)  # fmt: skip
"""What `make bench` and `make bench-full` write, and from "checks" on `make gpu`, in the order of the page."""
Shown = tuple[str, Sequence[str], Callable[[StudyRuns], Report]]
"""What the pages need of a study: its name, the stems of its notebooks, and what is said of its runs."""
Known = Mapping[tuple[str, str], StudyRuns]


def build(studies: Sequence[Shown], say: Say = say, known: Known = MappingProxyType({})) -> Path:
    """Write every page and return the index's path; what cannot be read is left out, and said.

    known: (study, data set) -> runs that are loaded already.
    """
    assets = paths.REPORTS / "assets"
    with lock(assets, say):
        mathjax = resources.files("mathjax") / "static" / "mathjax" / "es5" / "tex-svg.js"
        for asset in (mathjax, TEMPLATES / "kit" / "kit.css", TEMPLATES / "kit" / "kit.js"):
            write_text(assets / asset.name, asset.read_text(encoding="utf-8"))
        build_explorer(paths.REPORTS / "weight_explorer.html")
        return _build(studies, say, known)


def _build(studies: Sequence[Shown], say: Say, known: Known) -> Path:
    exporter = HTMLExporter(template_name="kit", extra_template_basedirs=[str(TEMPLATES)])
    templates = Environment(loader=FileSystemLoader(TEMPLATES / "kit"), autoescape=True)  # as nbconvert's does not
    benchmarks = _benchmarks()

    def write(template: str, page: Path, words: dict[str, Any]) -> Path:
        root = "../" * len(page.relative_to(paths.REPORTS).parts[:-1])
        text = templates.get_template(template).render(root=root, performance=bool(benchmarks), **words)
        write_text(page, text)
        return page

    sections: list[dict[str, Any]] = []
    reports: list[Report] = []
    runs: dict[Path, Run] = {}
    datasets = {path.parent.name for name, *_ in studies for path in paths.RUNS.glob(f"*/{name}.json")}
    notebooks = {name: executed(report_folder(name)) for name in sorted(datasets, key=lambda x: (x != "scenes", x))}
    for dataset, copies in notebooks.items():
        navigation = _navigation(dataset, notebooks) + [("performance.html", "How fast")] * bool(benchmarks)
        shown = progress(copies, f"{dataset}: pages of notebooks")
        cards = {copy.stem: _notebook_page(exporter, copy, navigation) for copy in shown}
        for name, stems, report_of in studies:
            if (paths.RUNS / dataset / f"{name}.json").exists():
                try:
                    study = known.get((name, dataset)) or load_study(dataset, name)
                    report = report_of(study)
                except UWMLError as error:
                    say(f"{dataset}: left out of the pages ({error})")
                    continue
                sections.append(_section(name, dataset, report, [cards[stem] for stem in stems if stem in cards]))
                if not dataset.endswith("_smoke"):  # which finds nothing but that everything works
                    reports.append(report)
                runs |= {run.folder: run for run in study.all_runs}
    pages = {write("run.html.j2", _run_page(run), _run_words(run)) for run in progress(runs.values(), "pages of runs")}
    for page in {*(paths.REPORTS / "pages").glob("*/*.html")} - pages:
        page.unlink()  # of a run that no table shows any more
    if benchmarks:
        write("performance.html.j2", paths.REPORTS / "performance.html", {"devices": benchmarks})
    words = _landing_words([*sections, *_sweeps(say)], reports, [*runs.values()], datasets)
    return write("landing.html.j2", paths.REPORTS / "index.html", words)


def _link(target: Path, folder: Path) -> str:
    """The URL of a file in a page of a folder."""
    return quote(Path(os.path.relpath(target, folder)).as_posix())


def executed(folder: Path) -> list[Path]:
    """Return the executed copies of notebooks in a folder, in order; damaged ones are left out."""
    return [copy for copy in sorted(folder.glob("[0-9][0-9]_*.ipynb")) if key_of(copy)]


def key_of(copy: Path) -> str | None:
    """The key that an executed copy was made under; None if it is not there, damaged, or no copy of this kit's."""
    try:
        return nbformat.read(copy, as_version=4).metadata.get("uwml_key")
    except (OSError, ValueError, nbformat.reader.NotJSONError, nbformat.ValidationError):
        return None


def _navigation(dataset: str, notebooks: Mapping[str, Sequence[Path]]) -> list[tuple[str, str]]:
    """URL and title of every notebook's page, of this data set or, where that has none, of another one of its size."""
    found: dict[str, str] = {}
    for name in sorted(notebooks, key=lambda name: (name != dataset, name)):
        if name.endswith("_smoke") == dataset.endswith("_smoke"):
            found = {copy.stem: quote(f"{name}/{copy.stem}.html") for copy in notebooks[name]} | found
    return [(found[stem], stem.replace("_", " ")) for stem in sorted(found)]


def _notebook_page(exporter: HTMLExporter, copy: Path, navigation: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Write an executed notebook's page; return its link, its title, and the beginning of what it says of itself."""
    content, here = nbformat.read(copy, as_version=4), quote(f"{copy.parent.name}/{copy.stem}.html")
    heading, _, rest = content.cells[0].source.partition("\n\n")
    title = heading.removeprefix("# ")
    pages = {Path(page).stem: f"../{page}" for page, _ in navigation}

    def link(match: re.Match[str]) -> str:  # to a page; in plain words to a notebook that was not executed
        words, name = match.groups()
        return f"[{words}]({pages[name]})" if name in pages else words

    content.cells = [cell for cell in content.cells if not MACHINE & {*cell.metadata.get("tags", ())}]
    for cell in content.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\[([^\]]+)\]\((\w+)\.ipynb\)", link, cell.source)
    words = {
        "kit_navigation": [{"href": f"../{page}", "words": name, "here": page == here} for page, name in navigation],
        "kit_root": "../", "metadata": {"name": title},
    }  # fmt: skip
    write_text(copy.with_suffix(".html"), exporter.from_notebook_node(content, resources=words)[0])
    about = textwrap.shorten(re.sub(r"[*`$]", "", rest.partition("\n\n")[0]), 150, placeholder=" ...")
    return {"href": here, "words": title, "about": about}


def _section(name: str, dataset: str, report: Report, cards: list[dict[str, str]]) -> dict[str, Any]:
    path = report_folder(dataset) / "durations.json"
    noted = read_json(path).get(name, {}).get("seconds", {}) if path.exists() else {}
    seconds = [(step, duration(value)) for step, value in noted.items()]
    return report.to_html(f"pages/{quote(dataset)}/{{0}}.html") | {"pages": cards, "seconds": seconds}


def _sweeps(say: Say) -> Iterator[dict[str, Any]]:
    """What each sweep found: its settings, its figure, the chosen one's numbers, its runs."""
    for path in sorted(paths.SWEEPS.glob("*/*/sweep.json")):
        try:
            found = read_sealed_json(path)
        except UWMLError as error:
            say(f"{path.parent.name}: left out of the pages ({error})")
            continue
        settings, chosen, runs = (pd.DataFrame(found["tables"][name]) for name in ("settings", "chosen", "runs"))
        title = f"{found['dataset']}: sweep {found['name']}"
        notes = tuple(sentence.replace("**", "") for sentence in found["sentences"])
        report = Report(title, settings.set_index("setting"), runs.set_index("run folder"), notes=notes)
        yield report.to_html(f"runs/{quote(found['dataset'])}/{{0}}/config.json") | {
            "figure": _link(path.with_suffix(".png"), paths.REPORTS),
            "alt": f"rsum on {found['chosen_by']} against {', '.join(found['varied'])}: the numbers of the table",
            "chosen": table_html(chosen),
        }


def _landing_words(
    sections: Sequence[dict[str, Any]], reports: Sequence[Report], runs: Sequence[Run], datasets: Collection[str]
) -> dict[str, Any]:
    # The figure of notebook 4, of these reports or else of the published ones.
    curves = [folder / "figures" / "weight_curves.png" for folder in (report_folder("scenes"), paths.REFERENCE)]
    data = {name: f"{words} ({EMBEDDED[name].train:,} to train on)" for name, words in DATA_WORDS.items()}
    return {
        "curves": next((_link(path, paths.REPORTS) for path in curves if path.exists()), None),
        "findings": [sentence for report in reports for sentence in report.findings],
        "in_short": in_short(reports),
        "data": {name: words for name, words in data.items() if name in datasets},
        "sections": sections,
        "reliability": paragraph_html(reliability_text()),
        "provenance": runs[0].results["provenance"] if runs else None,
    }


def _run_page(run: Run) -> Path:
    return paths.REPORTS / "pages" / run.config.dataset / f"{run.folder.name}.html"


def _run_words(run: Run) -> dict[str, Any]:
    """What the page of a run says: recalls, curves, the settings that are not the defaults, where it comes from."""
    history, usual, come_from = run.history(), asdict(ExperimentConfig()), run.results["provenance"]
    metrics = pd.DataFrame([[f"{run.metrics[name]:.1f}" for name in COLUMNS]], columns=[*COLUMNS.values()])
    steps, epochs = (history[history["kind"] == kind] for kind in ("step", "epoch"))
    facts = ("command", "commit", "clean_tree", "machine", "python", "started")
    return {
        "run": run, "files": _link(run.folder, _run_page(run).parent),
        "metrics": table_html(metrics),
        "warmup": 320 * run.config.warmup_epochs / run.config.epochs,
        "curves": [
            _curve(steps, "loss", "loss"),
            _curve(epochs, "dev_rsum", f"rsum on {run.config.chosen_by}"),
            _curve(steps, "informative_share", "share of anchors that inform"),
            _curve(steps, "gradient_norm", "length of the gradient"),
        ],
        "settings": [(name, value) for name, value in run.config.to_dict().items() if value != usual[name]],
        "provenance": [(name, come_from[name]) for name in facts] + list(come_from["versions"].items()),
    }  # fmt: skip


def _curve(lines: pd.DataFrame, column: str, label: str) -> dict[str, Any]:
    """A line for SVG, 320 by 150, through the readings of a column, from left to right over all epochs."""
    values = lines[column].astype(float)
    low, high = values.min(), values.max()
    x = 320 * lines["epochs_done"] / lines["epochs_done"].max()
    y = 20 + 110 * (high - values) / ((high - low) or 1)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True) if b == b)
    ends = {"first": values.iloc[0], "last": values.iloc[-1], "low": low, "high": high}
    return {"label": label, "points": points, **{name: f"{value:.4g}" for name, value in ends.items()}}


def _benchmarks() -> list[dict[str, Any]]:
    """What the benchmarks found on each kind of device, part by part in order."""
    folders = sorted({path.parent for path in paths.PERFORMANCE.glob("*/*.json")})
    files = {folder.name: [folder / f"{name}.json" for name in BENCHMARKS] for folder in folders}
    return [{"name": name, "parts": [_benchmark(x) for x in parts if x.exists()]} for name, parts in files.items()]


def _benchmark(path: Path) -> dict[str, Any]:
    found = read_json(path)
    tables = found["tables"] if "tables" in found else {found["title"]: found["rows"]}
    return {
        **found,
        "bounds": paragraph_html(found["bounds"]),
        "tables": {title: table_html(pd.DataFrame(rows)) for title, rows in tables.items()},
        "figure": _link(path.with_suffix(".png"), paths.REPORTS) if found["alt"] else "",
    }
