"""The pages made of data: published results, one's own runs beside them, sweeps, benchmarks."""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd

from uwml_lib.config import ExperimentConfig
from uwml_lib.reports.published import comparison_text, finished_runs
from uwml_lib.reports.records import reliability_text, step_seconds
from uwml_lib.reports.report import RUNS, Report, in_short, plain_markdown, table_markdown
from uwml_lib.reports.site import findings
from uwml_lib.reports.site.sources import Sources, address, page_name, unbroken, unnoticed
from uwml_lib.reports.tables import COLUMNS
from uwml_lib.runs import Run, StudyRuns, load_study
from uwml_lib.runs.run import NUMBERS
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, read_lines, read_sealed_json
from uwml_lib.support.paths import report_folder
from uwml_lib.support.progress import Say, duration, progress

BENCHMARKS = (
    "loss", "embeddings", "step", "growth", "training", "training_full", "precision", "evaluation", "evaluation_full",
    "loading", "checks", "steps", "scoring", "epoch", "runs", "kernels",
)  # fmt: skip
"""What `make bench` and `make bench-full` write, and from "checks" on `make gpu`, in the order of the page."""
Known = Mapping[tuple[str, str], StudyRuns]
WIDE = "---\nhtml_theme.sidebar_secondary.remove: true\n---"
"""Begins a page whose tables take the room of its contents."""


class Shown(NamedTuple):
    """What the pages need of a study: its name, the stem of its published table, a title, the stem of the figure that
    shows its result with what it shows, the stems of its notebooks, what is said of its runs, and its usual data set.
    """

    name: str
    table: str
    title: str
    figure: tuple[str, str]
    notebooks: Sequence[str]
    report: Callable[[StudyRuns], Report]
    dataset: str


def write_results(
    sources: Sources, studies: Sequence[Shown], copies: Mapping[str, Path], say: Say, known: Known
) -> None:
    """Write all pages of results, and the parts that chapters include."""
    own, reports = list[str](), []
    runs: dict[Path, Run] = {}
    for dataset in sorted({path.parent.name for study in studies for path in paths.RUNS.glob(f"*/{study.name}.json")}):
        for study in studies:
            if (paths.RUNS / dataset / f"{study.name}.json").exists():
                try:
                    found = known.get((study.name, dataset)) or load_study(dataset, study.name)
                    report = study.report(found)
                except UWMLError as error:
                    say(f"{dataset}: left out of the pages ({error})")
                    continue
                own.append(_own(sources, study, dataset, report))
                if not dataset.endswith("_smoke"):  # which finds nothing but that everything works
                    reports.append(report)
                runs |= {run.folder: run for run in found.all_runs}
    for run in progress(runs.values(), "pages of runs"):
        sources.write(run_page(run), _run(run))
    published = [*_published(sources, studies, own, say)]
    sources.write("pages/results/published.md", f"{WIDE}\n\n{unnoticed(comparison_text(finished_runs(say)))}")
    sources.write("_made/published.md", contents([*published, "pages/results/published.md"]))
    own += [*_sweeps(sources, say), *(page for page in copies if page.startswith("pages/runs/"))]
    sources.write("_made/own.md", contents(own))
    sources.write("_made/own_findings.md", _own_findings(reports))
    titles = {study.name: study.title for study in studies}
    table = findings.findings_table(titles, say, linked=True)
    parts = [*findings.answers(say), findings.conclusion(say), table, findings.of_the_baseline()]
    sources.write("_made/findings.md", unbroken(unnoticed("\n\n".join(parts))))
    for name, chosen in {"sentences": None, "in_short": findings.IN_SHORT}.items():
        said = "\n".join(f"- {sentence}" for sentence in findings.findings_sentences(say, chosen))
        sources.write(f"_made/{name}.md", unbroken(unnoticed(said)) or "Nothing was published.")
    sources.write("_made/performance.md", _performance(sources))
    sources.write("_made/reliability.md", _reliability(say))
    sources.write("_made/curves.md", _weight_curves(sources))


def _own_findings(reports: Sequence[Report]) -> str:
    said = [f"- {unnoticed(plain_markdown(finding))}" for report in reports for finding in report.findings]
    compared = {what: winner for report in reports for what, winner in report.outcomes.items()}  # each once
    return "\n".join([in_short(compared), "", *said]) if reports else "None so far: `make reproduce` makes them."


def run_page(run: Run) -> str:
    """The source of a run's page."""
    return f"pages/runs/{page_name(run.config.dataset)}/{page_name(run.folder.name)}.md"


def contents(pages: Sequence[str]) -> str:
    """A table of contents, for the navigation too, of sources."""
    lines = "\n".join(f"/{page.rpartition('.')[0]}" for page in pages)
    return f"```{{toctree}}\n:maxdepth: 1\n\n{lines}\n```\n"


def _published(sources: Sources, studies: Sequence[Shown], own: Sequence[str], say: Say) -> Iterator[str]:
    """Write a page for each published table; yield their sources, and note which page shows the table.

    own: sources of the pages of the reader's own studies, to which the page of the same study leads.
    """
    folders = {path.parent for study in studies for path in paths.REFERENCE.glob(f"**/{study.table}.md")}
    for folder in sorted(folders, key=lambda folder: (folder != paths.REFERENCE, folder.name)):
        dataset = "scenes" if folder == paths.REFERENCE else folder.name
        for study in studies:
            file = folder / f"{study.table}.md"
            if file.exists():
                page = f"pages/results/{page_name(dataset)}-{study.name}.md"
                sources.shown[file.resolve()] = page
                text = re.sub(r"\]\((runs/[^()\s]+)\)", r"](\1/results.json)", "\n".join(read_lines(file)))
                parts = [
                    f"# {study.title}: {findings.DATA.get(dataset, plain_markdown(dataset))}",
                    *map(unbroken, map(unnoticed, findings.sentences_of(folder, study.name, say))),
                    _command(study, _dataset_of(folder)),
                    *_figure(sources, [folder / "figures", folder], study),
                    _folded(sources.linked(unbroken(text), folder, page)),
                    *_durations(folder, study),
                    _notebook_links(sources, study),
                    _beside(own, folder, study),
                ]
                sources.write(page, "\n\n".join(filter(None, [WIDE, *parts])))
                yield page


def _beside(own: Sequence[str], folder: Path, study: Shown) -> str:
    """Links to the reader's own runs of a published study, in smoke size too."""
    name = "scenes" if folder == paths.REFERENCE else folder.name
    same = {f"pages/runs/{page_name(name + end)}/{study.name}.md" for end in ("", "_precomp", "_smoke")}
    links = ", ".join(f"[](/{page})" for page in own if page in same)
    return f"Your own runs of this: {links}." if links else ""


def _own(sources: Sources, study: Shown, dataset: str, report: Report) -> str:
    """Write the page of a study of one's own and return its source."""
    folder, page = report_folder(dataset), f"pages/runs/{page_name(dataset)}/{study.name}.md"

    def run_link(match: re.Match[str]) -> str:
        return f"](/pages/runs/{page_name(dataset)}/{page_name(match[1])}.md)"

    parts = [
        f"# {study.title}: {unnoticed(plain_markdown(dataset))}",
        _command(study, dataset),
        *_figure(sources, [folder / "figures"], study),
        _folded(re.sub(r"\]\(runs/([^()\s]+)\)", run_link, unbroken(unnoticed(report.with_runs())))),
        *_durations(folder, study),
        _notebook_links(sources, study),
    ]
    sources.write(page, "\n\n".join(filter(None, [WIDE, *parts])))
    return page


def _figure(sources: Sources, folders: Sequence[Path], study: Shown) -> list[str]:
    stem, alt = study.figure
    files = [folder / f"{stem}.png" for folder in folders if stem]
    return [f"![{alt}]({sources.picture(file)})" for file in files if file.exists()][:1]


def _folded(text: str) -> str:
    """Fold the table of runs of a report."""
    before, heading, runs = text.partition(RUNS)
    return f"{before}:::{{dropdown}} The trainings behind it\n\n{runs}\n:::" if heading else text


def _dataset_of(folder: Path) -> str:
    """The data set of published runs."""
    configs = sorted(folder.glob("runs/*/config.json"))
    return str(read_json(configs[0])["config"]["dataset"]) if configs else folder.name


def _command(study: Shown, dataset: str) -> str:
    smoke, name = dataset.endswith("_smoke"), shlex.quote(dataset.removesuffix("_smoke"))
    data = "" if name == study.dataset else f" DATASET={name}"
    command = f"make {study.name}{data}{' PROFILE=smoke' * smoke}"
    rule = "[When a loss counts as better](/pages/results.md#the-rule)"
    return f"Command: `` {command} ``; the trainings below name theirs, seeds and all. {rule}."


def _durations(folder: Path, study: Shown) -> list[str]:
    words = ", ".join(f"{step} {duration(seconds)}" for step, seconds in step_seconds(folder, study.name).items())
    return [f"How long the command takes, from nothing and with its usual seeds: {words}."] if words else []


def _notebook_links(sources: Sources, study: Shown) -> str:
    pages = [sources.shown.get((paths.NOTEBOOKS / f"{stem}.ipynb").resolve()) for stem in study.notebooks]
    links = ", ".join(f"[](/{page})" for page in pages if page)
    return f"The notebooks that show it: {links}." if links else ""


def _weight_curves(sources: Sources) -> str:
    """The figure of notebook 5, the published one or one's own."""
    folders = (paths.REFERENCE, report_folder("scenes"))
    files = [file for folder in folders if (file := folder / "figures/weight_curves.png").exists()]
    alt = (
        "Weight of a true and of a wrong pair against its similarity: flat for the triplet loss; for the polynomial "
        "loss sloped, and for wrong pairs zero between 0.10 and 0.35 and negative below"
    )
    return f"![{alt}]({sources.picture(files[0])})" if files else ""


def _reliability(say: Say) -> str:
    try:
        return reliability_text()
    except UWMLError as error:
        say(f"left out of the pages ({error})")
        return ""


def _sweeps(sources: Sources, say: Say) -> Iterator[str]:
    """Write what each sweep found: its settings, its figure, the chosen one's numbers, its runs; yield the sources."""
    for path in sorted(paths.SWEEPS.glob("*/*/sweep.json")):
        try:
            found = read_sealed_json(path)
        except UWMLError as error:
            say(f"{path.parent.name}: left out of the pages ({error})")
            continue
        page = f"pages/runs/{page_name(found['dataset'])}/sweep-{page_name(found['name'])}.md"
        settings, chosen, runs = (pd.DataFrame(found["tables"][name]) for name in ("settings", "chosen", "runs"))
        alt = f"rsum on {found['chosen_by']} against {', '.join(found['varied'])}: the numbers of the table"
        title = plain_markdown(f"{found['dataset']}: sweep {found['name']}")
        place = quote(f"{paths.RUNS.name}/{found['dataset']}")
        runs["run folder"] = [f"[{name}]({place}/{quote(name)}/config.json)" for name in runs["run folder"]]
        tried, best, trained = (table_markdown(table, index=False) for table in (settings, chosen, runs))
        text = [f"# {title}", tried, *found["sentences"], "## Chosen", best, "## Runs", trained]
        picture = path.with_suffix(".png")
        figure = [f"![{plain_markdown(alt)}]({sources.picture(picture)})"] if picture.exists() else []
        sources.write(page, sources.linked("\n\n".join([*map(unnoticed, text), *figure]), paths.RUNS.parent, page))
        yield page


def _run(run: Run) -> str:
    """The page of a run: recalls, curves, the settings that are not the defaults, where it comes from."""
    history, usual, come_from = run.history(), asdict(ExperimentConfig()), run.results["provenance"]
    metrics = pd.DataFrame([[f"{run.metrics[name]:.1f}" for name in COLUMNS]], columns=[*COLUMNS.values()])
    steps, epochs = (history[history["kind"] == kind] for kind in ("step", "epoch"))
    warmup = 320 * run.config.warmup_epochs / run.config.epochs
    curves = [
        _curve(steps, "loss", "loss", warmup),
        _curve(epochs, "dev_rsum", f"rsum on {run.config.chosen_by}", warmup),
        _curve(steps, "informative_share", "share of anchors that inform", warmup),
        _curve(steps, "gradient_norm", "length of the gradient", warmup),
    ]
    facts = [(name, come_from[name]) for name in ("command", "commit", "clean_tree", "machine", "python", "started")]
    settings = [(name, value) for name, value in run.config.to_dict().items() if value != usual[name]]
    there = [name for name in NUMBERS if (run.folder / name).exists()]
    files = [f'<a href="{escape(address(run.folder / name, run_page(run)))}">{name}</a>' for name in there]
    return "\n\n".join([
        f"---\norphan: true\n---\n\n# {unnoticed(plain_markdown(run.folder.name))}",
        f"One training: {run.model}, {run.config.loss} loss, seed {run.seed}. Everything here is in its "
        f"{', '.join(files)}.",
        "## What it reached", table_markdown(metrics, index=False),
        "## How it went", f'<div class="kit-curves">{"".join(curves)}</div>',
        "From left to right all epochs; grey is warm-up.",
        "## Settings", _facts(settings),
        "## Where it comes from", _facts([*facts, *come_from["versions"].items()]),
    ])  # fmt: skip


def _facts(facts: Sequence[tuple[str, Any]]) -> str:
    """Names and values, whatever is in them, as a list."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts)
    return f'<dl class="kit-facts">{items}</dl>'.replace("\n", " ")


def _curve(lines: pd.DataFrame, column: str, label: str, warmup: float) -> str:
    """A line in SVG, 320 by 150, through the readings of a column, from left to right over all epochs."""
    values = lines[column].astype(float)
    low, high = values.min(), values.max()
    x = 320 * lines["epochs_done"] / lines["epochs_done"].max()
    y = 20 + 110 * (high - values) / ((high - low) or 1)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True) if b == b)
    first, last, low, high = (f"{value:.4g}" for value in (values.iloc[0], values.iloc[-1], low, high))
    words = f"{label}: from {first} to {last}, between {low} and {high}"
    return (
        f'<figure><svg viewBox="0 0 320 150" role="img" aria-label="{words}"><rect width="{warmup:.1f}" height="150"/>'
        f'<polyline points="{points}"/><text x="6" y="14">{high}</text><text x="6" y="144">{low}</text></svg>'
        f"<figcaption>{label}</figcaption></figure>"
    )


def _performance(sources: Sources) -> str:
    """What the benchmarks found on each kind of device, part by part in order."""
    folders, text = sorted({path.parent for path in paths.PERFORMANCE.glob("*/*.json")}), list[str]()
    for folder in folders:
        text.append(f"## {plain_markdown(folder.name)}")
        for path in (folder / f"{name}.json" for name in BENCHMARKS):
            if path.exists():
                text += _benchmark(sources, path)
    return "\n\n".join(text) or "Nothing was measured here: `make bench` does."


def _benchmark(sources: Sources, path: Path) -> list[str]:
    found = read_json(path)
    tables = found["tables"] if "tables" in found else {found["title"]: found["rows"]}
    text = [f"### {plain_markdown(found['title'])}"]
    if found["alt"]:
        text.append(f"![{plain_markdown(found['alt'])}]({sources.picture(path.with_suffix('.png'))})")
    for title, rows in tables.items():
        text += [plain_markdown(title)] * (title != found["title"]) + [table_markdown(pd.DataFrame(rows), index=False)]
    if (outcome := found.get("outcome", "finished")) != "finished":
        text.append(plain_markdown(outcome))
    text += ["\n".join(f"- {plain_markdown(target)}" for target in found.get("targets", ())), found["bounds"]]
    made = found["provenance"]
    text.append(
        f"{plain_markdown(made['machine'])}, {found['threads']} threads, torch {made['versions']['torch']}, "
        f"commit {(made['commit'] or 'unknown')[:7]}, {made['started']}: `{made['command']}`"
    )
    return [unnoticed(part) for part in text if part]
