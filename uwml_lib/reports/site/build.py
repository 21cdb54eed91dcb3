"""The site, made by Sphinx to be read offline: chapters, executed notebooks, results, runs, every public name."""

import io
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import pandas as pd
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from uwml_lib.reports.report import table_markdown
from uwml_lib.reports.site.api import api_pages
from uwml_lib.reports.site.explorer import build_explorer
from uwml_lib.reports.site.playground import build_playground
from uwml_lib.reports.site.results import Known, Shown, contents, write_results
from uwml_lib.reports.site.sources import Sources, documents, executed, page_name, write_documents, write_notebooks
from uwml_lib.support import paths
from uwml_lib.support.files import lock, make_folder, writing
from uwml_lib.support.progress import Say, say

HERE = Path(__file__).parent


def build(
    studies: Sequence[Shown], say: Say = say, known: Known = MappingProxyType({}), course: pd.DataFrame | None = None
) -> Path:
    """Write every page and return the index's path; what cannot be read is left out, and said.

    known: (study, data set) -> runs that are loaded already. course: what is said of notebooks, their stems first.
    """
    with lock(paths.REPORTS / "pages", say):
        build_explorer(paths.REPORTS / "weight_explorer.html")
        build_playground(paths.REPORTS / "loss_playground.html")
        make_folder(paths.REPORTS)
        with writing(paths.REPORTS / "index.html"), _workplace() as folder:
            sources, made = Sources(folder / "source"), folder / "html"
            shutil.copytree(HERE / "chapters", sources.folder)
            write_sources(sources, studies, say, known, course)
            run_sphinx(sources.folder, made, say)
            _replace(made, paths.REPORTS)
    return paths.REPORTS / "index.html"


@contextmanager
def _workplace() -> Iterator[Path]:
    """A folder beside the pages, empty, for as long as they are made; what a killed process left in it goes."""
    folder = paths.REPORTS / ".site"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_sources(
    sources: Sources, studies: Sequence[Shown], say: Say, known: Known, course: pd.DataFrame | None
) -> None:
    """Write what is made of the checkout's documents, of notebooks, runs and names."""
    sources.shown |= documents()
    copies = notebooks()
    for page, copy in copies.items():
        if page.startswith("pages/course/"):
            sources.shown |= {copy.resolve(): page, paths.NOTEBOOKS / copy.name: page}
    write_notebooks(sources, copies)
    sources.write("_made/course.md", "" if course is None else _linked(course, [*copies]))
    reference = api_pages()
    for page, text in reference.items():
        sources.write(page, text)
    sources.write("_made/api.md", contents([*reference]))
    write_results(sources, studies, copies, say, known)
    write_documents(sources)


def _linked(course: pd.DataFrame, pages: Sequence[str]) -> str:
    """What is said of the notebooks that have a page, each led to by its title."""
    links = {Path(page).stem: f"[](/{page})" for page in pages if page.startswith("pages/course/")}
    shown = course[course["notebook"].isin(links)].replace({"notebook": links})
    return table_markdown(shown, index=False)


def notebooks() -> dict[str, Path]:
    """Return the source of each notebook's page -> the copy to show.

    The course shows the published copies, one's own where nothing is published, and what was never executed as it is;
    all other copies are of their data set.
    """
    # The embedded scenes first, what is made only to see that everything works last.
    folders = sorted(
        {path.parent for path in paths.REPORTS.glob("*/[0-9][0-9]_*.ipynb")},
        key=lambda folder: (folder.name.endswith("_smoke"), folder.name != "scenes", folder.name),
    )
    own = {folder.name: executed(folder) for folder in folders if folder != paths.REFERENCE}
    published = [copy for folder in sorted(paths.REFERENCE.glob("**/notebooks")) for copy in executed(folder)]
    course: dict[str, Path] = {}
    for copy in [*published, *sum(own.values(), []), *sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))]:
        course.setdefault(f"pages/course/{copy.name}", copy)
    shown = {*course.values()}
    others = {f"pages/runs/{page_name(dataset)}/{copy.name}": copy
              for dataset, copies in own.items() for copy in copies if copy not in shown}  # fmt: skip
    return course | others


def run_sphinx(source: Path, made: Path, say: Say) -> None:
    """Make the pages of all sources; what Sphinx warns of is said."""
    warnings, doctrees = io.StringIO(), made.with_name("doctrees")
    static = source / "_static_of_packages"
    shutil.copytree(HERE / "static", static)
    shutil.copy(str(resources.files("mathjax") / "static" / "mathjax" / "es5" / "tex-svg.js"), static)
    with patch_docutils(HERE), docutils_namespace():
        app = Sphinx(
            source, HERE, made, doctrees, "html", {"html_static_path": [str(static)]}, None, warnings, freshenv=True
        )
        app.build()
    for line in warnings.getvalue().splitlines():
        say(f"pages: {line.replace(str(source), 'source')}")


def _replace(made: Path, folder: Path) -> None:
    """Put what was made into a folder, each thing in place of what is called so; the index last."""
    for path in sorted(made.iterdir(), key=lambda path: path.name == "index.html"):
        if path.is_dir() and not any(path.iterdir()):
            continue
        if (folder / path.name).is_dir():
            shutil.rmtree(folder / path.name)
        os.replace(path, folder / path.name)
