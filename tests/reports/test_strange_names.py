"""A data set may be called as a folder may: pages, tables and commands show the name as it is, and links lead on."""

from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import pandas as pd
import pytest

from tests.made import write_run
from uwml_lib.reports.report import Report
from uwml_lib.reports.site import build
from uwml_lib.reports.site.results import Shown
from uwml_lib.reports.site.sources import page_name, unnoticed
from uwml_lib.reports.two_losses import two_losses
from uwml_lib.runs import load_study, save_study
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import write_json, write_sealed_json

NAME = """a #1 "b" <i>'&%20|{x}[y](z)`*é?"""
ELSEWHERE = "plain"


class Page(HTMLParser):
    """The links, the elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.elements: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if not (tag == "i" and "class" in dict(attributes)):  # an icon of the theme
            self.elements.add(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]

    def handle_data(self, text):
        self.text += text


@pytest.fixture
def reports(tmp_path, monkeypatch):
    for name, folder in {"REPORTS": "", "RUNS": "runs", "SWEEPS": "sweeps", "NOTEBOOKS": "no"}.items():
        monkeypatch.setattr(paths, name, tmp_path / folder)
    for name in ("REFERENCE", "PERFORMANCE", "RELIABILITY"):
        monkeypatch.setattr(paths, name, tmp_path / "reference")
    monkeypatch.setattr(build, "build_explorer", lambda path: path.touch())
    return tmp_path


def write_results(dataset: str) -> None:
    """Two runs, a sweep and two executed notebooks."""
    losses = {"triplet": 1.5, "polynomial": 2.5}
    runs = [write_run(paths.RUNS / dataset / loss, loss, 0, q, dataset=dataset) for loss, q in losses.items()]
    save_study(dataset, "reproduce", {"runs": runs})
    tables = {
        "settings": [{"setting": 1, "loss.kind": "<i>"}], "chosen": [{"loss": "<i>"}],
        "runs": [{"run folder": "triplet", "loss": "<i>"}],
    }  # fmt: skip
    sweep = {"dataset": dataset, "name": "<i>", "chosen_by": "dev", "varied": [], "sentences": [], "tables": tables}
    folder = paths.SWEEPS / dataset / dataset
    write_sealed_json(folder / "sweep.json", sweep)
    (folder / "sweep.png").touch()
    write_json(paths.REPORTS / dataset / "durations.json", {})
    for stem, other in {"01_one": "02_two", "02_two": "01_one"}.items():
        cell = nbformat.v4.new_markdown_cell(f"# {stem}\n\nText, and [the other]({other}.ipynb).")
        notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"uwml_key": "x"})
        nbformat.write(notebook, paths.REPORTS / dataset / f"{stem}.ipynb")


def test_every_page_shows_the_name_and_every_link_leads_somewhere(reports):
    for dataset in (NAME, ELSEWHERE):
        write_results(dataset)
    study = Shown("reproduce", "table", "The two losses", ("", ""), ["01_one", "02_two"], two_losses, "scenes")
    build.build([study], lambda line: pytest.fail(line))
    folder = reports / "pages/runs" / page_name(NAME)
    names = {"reproduce", "sweep-i-" + page_name("<i>").rpartition("-")[2], "triplet", "polynomial"}
    assert {path.stem for path in folder.iterdir()} >= names
    for path in [reports / "index.html", *reports.glob("pages/**/*.html")]:
        page = Page(path.read_text(encoding="utf-8"))
        assert "i" not in page.elements, f"{path}: the name is markup"
        for link in page.links:
            parts = urlsplit(link)
            if not parts.scheme:
                target = (path.parent / unquote(parts.path)).resolve()
                assert not parts.path or target.exists(), f"{path}: {link}"
    text = {name: Page((folder / f"{name}.html").read_text(encoding="utf-8")).text for name in names}
    assert f"{NAME}: 40 test images, 5 captions each" in text["reproduce"]
    assert NAME in text["triplet"]
    assert any(f"{NAME}: sweep <i>" in words for words in text.values())
    assert f"On {NAME} (40 test images" in Page((reports / "index.html").read_text(encoding="utf-8")).text
    for notebook in (reports / "pages").glob("*/01_one.html"), folder.glob("01_one.html"):
        for page in notebook:
            assert "02_two.html" in page.read_text(encoding="utf-8")


def test_tables_keep_their_columns_and_titles_their_characters():
    table = pd.DataFrame({"x|y": ["a|b", 1.5]}, index=pd.Index(["<i>", "p|q"], name="loss"))
    report = Report(f"{NAME}: _x_ f8k_precomp", table, table.rename_axis("run folder"))
    title, _, *rows = report.to_markdown().splitlines()
    assert title == r"""## a #1 "b" \<i\>'\&%20\|{x}\[y\](z)\`\*é?: \_x\_ f8k_precomp"""
    assert {row.replace(r"\|", "").count("|") for row in rows if row} == {3}
    assert unnoticed("a <i> `b < c` \\< $5") == "a \\<i> `b < c` \\< \\$5"


def test_a_command_in_an_error_can_be_pasted(reports):
    with pytest.raises(UWMLError, match="`make reproduce DATASET='a b'` makes them"):
        load_study("a b")
