"""What Sphinx reads: chapters, documents of the checkout, executed notebooks; links among them lead to their pages."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import quote, unquote

import nbformat

from uwml_lib.reports.report import plain_markdown
from uwml_lib.reports.site.glossary import glossary_directives
from uwml_lib.support import paths
from uwml_lib.support.files import make_folder, read_lines, sha256_of
from uwml_lib.support.paths import CHECKOUT

MACHINE = {"injected-parameters", "install", "machine"}
"""Tags of cells that no page shows: papermill's parameters, what installs the kit, and what is for other programs."""
LONGEST_OUTPUT = 30
"""Lines of text below a cell; more are folded."""
DOCUMENTS = {
    "README.md": "index.md", "CONTRIBUTING.md": "pages/contributing.md", "CHANGELOG.md": "pages/changelog.md",
    "notebooks/GLOSSARY.md": "pages/glossary.md", "notebooks/README.md": "pages/course/lesson.md",
    "data/README.md": "pages/your_data/layout.md", "reports/reference": "pages/results.md",
    "reports/reference/performance": "pages/how_fast.md",
}  # fmt: skip
"""Document or folder of the checkout -> the source of the page that shows it."""
CHAPTERS = Path(__file__).parent / "chapters"
NOT_EXECUTED = "*This notebook was not executed yet, so its results are missing here.*"
ONLY_IN_THE_CHECKOUT = "This part is made of a document of the kit's checkout, which is not here."
CODE_OR_LINK = re.compile(
    r"(`{3,}).*?\1|(`+).*?\2|\\.|(!?)\[([^\[\]]*(?:\[[^\]]*\][^\[\]]*)*)\]\(([^()\s]+)\)", re.DOTALL
)


@dataclass
class Sources:
    """The folder of the sources, and the page that shows a file: file -> source, relative to the folder."""

    folder: Path
    shown: dict[Path, str] = field(default_factory=dict)

    def write(self, page: str, text: str) -> None:
        make_folder((self.folder / page).parent)
        (self.folder / page).write_text(text, encoding="utf-8")

    def linked(self, text: str, folder: Path, page: str) -> str:
        """Return Markdown that lies in `folder` for a page: its links lead to pages, or to files below reports, and
        elsewhere nowhere; its pictures are copied.
        """

        def link(match: re.Match[str]) -> str:
            picture, words, target = match.group(3, 4, 5)
            path, _, place = (target or "").partition("#")
            if not path or re.match("[a-z]+:|/", path):  # code, a place on the page, the network
                return match[0]
            file = (folder / unquote(path)).resolve()
            if picture:
                return f"![{words}]({self.picture(file)})" if file.is_file() else words
            if source := self.shown.get(file):
                return f"[{words}](/{quote(source)}{'#' * bool(place)}{place})"
            if file.is_relative_to(paths.REPORTS.resolve()) and file.exists():
                return f'<a href="{escape(address(file, page))}">{words}</a>'
            return words

        return CODE_OR_LINK.sub(link, text)

    def picture(self, file: Path) -> str:
        """Copy a picture to the sources and return its address there."""
        name = f"{file.stem}-{sha256_of(file)[:8]}{file.suffix}"  # others may have this stem
        make_folder(self.folder / "_pictures")
        shutil.copyfile(file, self.folder / "_pictures" / name)
        return f"/_pictures/{name}"


def address(file: Path, page: str) -> str:
    """The URL of a file in the page made of a source."""
    return quote(Path(os.path.relpath(file, paths.REPORTS.resolve() / Path(page).parent)).as_posix())


def unnoticed(text: str) -> str:
    """Markdown of a report for a page, on which < begins no markup and $ no formula."""
    return re.sub(r"(`+).*?\1|\\.|[<$]", lambda match: match[0] if len(match[0]) > 1 else f"\\{match[0]}", text)


def unbroken(text: str) -> str:
    """The same with no line ending inside of a mean ± its deviation, of an interval, or of a duration."""
    inside = r"(?<=\d) ± (?=\d)|(?<=\d), (?=[-+]\d[\d.]*\])|(?<=\d) (?=min |s )|(?<=\d min) (?=\d)"
    return re.sub(inside, lambda match: match[0].replace(" ", "\u00a0"), text)


def documents() -> dict[Path, str]:
    """Return chapter, or document of the checkout -> the source of the page that shows it."""
    chapters = {path.resolve(): path.relative_to(CHAPTERS).as_posix() for path in CHAPTERS.rglob("*.md")}
    return chapters | {CHECKOUT / name: page for name, page in DOCUMENTS.items()}


def write_documents(sources: Sources) -> None:
    """Write the documents of the checkout for chapters to include; of one that is not here, a title and a sentence."""
    for name, page in DOCUMENTS.items():
        path = CHECKOUT / name
        if name.endswith(".md"):
            missing = f"# {Path(page).stem.replace('_', ' ').capitalize()}\n\n{ONLY_IN_THE_CHECKOUT}"
            text = "\n".join(read_lines(path)) if path.exists() else missing
            made = glossary_directives(text) if page == "pages/glossary.md" else text
            sources.write(f"_made/{name}", sources.linked(made, path.parent, page))


def page_name(name: str) -> str:
    """The name of a data set, or of anything, for a file: itself, or what is plain of it and a digest."""
    plain = re.sub(r"[^\w-]+", "-", name, flags=re.ASCII).strip("-")
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}".lstrip("-")


def executed(folder: Path) -> list[Path]:
    """Return the executed copies of notebooks in a folder, in order; damaged ones are left out."""
    return [copy for copy in sorted(folder.glob("[0-9][0-9]_*.ipynb")) if key_of(copy)]


def key_of(copy: Path) -> str | None:
    """The key that an executed copy was made under; None if it is not there, damaged, or no copy of this kit's."""
    try:
        return nbformat.read(copy, as_version=4).metadata.get("uwml_key")
    except (OSError, ValueError, nbformat.reader.NotJSONError, nbformat.ValidationError):
        return None


def write_notebooks(sources: Sources, copies: Mapping[str, Path]) -> None:
    """Write notebooks as sources; copies: source -> the copy to show. Links among notebooks lead to those beside
    them, or of the course.
    """
    course = {Path(page).name: page for page in copies if page.startswith("pages/course/")}
    for page, copy in copies.items():
        beside = {Path(other).name: other for other in copies if Path(other).parent == Path(page).parent}
        places = {paths.NOTEBOOKS / name: other for name, other in (course | beside).items()}
        here = Sources(sources.folder, sources.shown | places)
        content = nbformat.read(copy, as_version=4)
        content.metadata.pop("widgets", None)
        if not content.metadata.get("uwml_key"):
            content.cells.insert(1, nbformat.v4.new_markdown_cell(NOT_EXECUTED))
        shown = [cell for cell in content.cells if not MACHINE & {*cell.metadata.get("tags", ())}]
        content.cells = [part for cell in shown for part in _pictures_apart(cell)]
        for cell in content.cells:
            if cell.cell_type == "markdown":
                cell.source = here.linked(cell.source, paths.NOTEBOOKS, page)
            else:
                _describe(cell)
        make_folder((sources.folder / page).parent)
        nbformat.write(content, sources.folder / page)


def _alt(output: nbformat.NotebookNode) -> str:
    return output.get("metadata", {}).get("image/png", {}).get("alt", "")


def _pictures_apart(cell: nbformat.NotebookNode) -> Iterator[nbformat.NotebookNode]:
    """Give each output of a cell with a picture a cell: myst-nb makes one figure, with one caption, of all of them."""
    outputs = cell.get("outputs", [])
    apart = outputs[1:] if any(map(_alt, outputs)) else []
    if apart:
        cell.outputs = outputs[:1]
    yield cell
    for output in apart:
        # It has some source, for myst-nb leaves out a cell without.
        yield nbformat.v4.new_code_cell("# the cell above", outputs=[output], metadata={"tags": ["remove-input"]})


def _describe(cell: nbformat.NotebookNode) -> None:
    """Give the picture below a cell its words, and fold long text."""
    outputs: Iterable[nbformat.NotebookNode] = cell.get("outputs", ())
    for output in outputs:
        if alt := _alt(output):
            cell.metadata["mystnb"] = {"image": {"alt": alt}, "figure": {"caption": unnoticed(plain_markdown(alt))}}
    if sum(len(output.get("text", "").splitlines()) for output in outputs) > LONGEST_OUTPUT:
        cell.metadata["tags"] = [*cell.metadata.get("tags", ()), "hide-output"]
