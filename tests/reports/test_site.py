"""The site of what is published, as `make site` builds it in a fresh checkout, and in a browser without network."""

import doctest
import json
import re
import shutil
from html.parser import HTMLParser
from importlib import import_module, resources
from pathlib import Path
from urllib.parse import unquote

import pytest

from uwml_lib.reports.site.api import ROOMS, public_names
from uwml_lib.studies import build_pages
from uwml_lib.support import paths
from uwml_lib.support.paths import CHECKOUT

PAGES = (
    "index.html", "pages/course/02_training.html", "pages/course/05_weight_functions.html", "pages/results.html",
    "pages/results/scenes-models.html", "pages/api/losses.html", "pages/how_fast.html", "pages/use_the_loss.html",
    "pages/glossary.html", "pages/playground.html", "weight_explorer.html", "loss_playground.html",
)  # fmt: skip
CHAPTERS = (
    "course", "playground", "results", "how_fast", "use_the_loss", "your_data", "api", "fidelity", "glossary",
    "contributing", "changelog",
)  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> tuple[Path, list[str]]:
    """A folder of reports that holds what is published and the pages, and what building them said."""
    reports, said = tmp_path_factory.mktemp("home") / "reports", list[str]()
    shutil.copytree(CHECKOUT / "reports/reference", reports / "reference")
    folders = {name: reports / name.lower() for name in ("RUNS", "SWEEPS", "EVALUATIONS", "REFERENCE")}
    folders |= {"REPORTS": reports, "PERFORMANCE": reports / "reference/performance"}
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in folders.items():
            patch.setattr(paths, name, folder)
        assert build_pages(said.append) == reports / "index.html"
    return reports, said


SETTLED = """new Promise(settled => {
    let timer = setTimeout(settled, 500);
    new MutationObserver(() => { clearTimeout(timer); timer = setTimeout(settled, 500); })
        .observe(document.body, {attributes: true, childList: true, subtree: true});
})"""
"""Nothing in the page changes for half a second: the theme looks 0.3 s after the last change for what is scrollable."""


class Page(HTMLParser):
    """The links, the places and what a browser would fetch by itself."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.places.add(values.get("id") or "")
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        elif tag not in ("a", "link") or values.get("rel") in ("stylesheet", "preload", "icon"):
            self.fetched += [values[name] for name in ("src", "href") if values.get(name)]


def test_nothing_is_warned_of(site):
    assert [line for line in site[1] if line.startswith("pages: ")] == []


def test_every_link_leads_somewhere_and_nothing_is_fetched_from_elsewhere(site):
    reports = site[0]
    pages = {path.resolve(): Page(path) for path in [*reports.glob("*.html"), *reports.glob("pages/**/*.html")]}
    assert len(pages) > 40
    for path, page in pages.items():
        for target in page.fetched:
            assert target.startswith("data:") or (path.parent / unquote(target.partition("?")[0])).exists(), target
        for link in page.links:
            target, _, place = link.partition("#")
            if re.match(r"[a-z]+:", target):
                assert target.startswith(("https:", "data:", "mailto:")), f"{path}: {link}"
                continue
            file = (path.parent / unquote(target)).resolve() if target else path
            assert file.exists(), f"{path}: {link}"
            if place and file in pages:
                assert unquote(place) in pages[file].places, f"{path}: {link}"


def test_it_is_small(site):
    reports = site[0]
    files = [path for path in reports.rglob("*") if path.is_file() and reports / "reference" not in path.parents]
    assert sum(path.stat().st_size for path in files) < 25e6


def test_every_chapter_is_there_and_says_something(site):
    index = (site[0] / "index.html").read_text(encoding="utf-8")
    for chapter in CHAPTERS:
        page = site[0] / f"pages/{chapter}.html"
        assert f'href="pages/{chapter}.html"' in index
        text = page.read_text(encoding="utf-8")
        assert "which is not here" not in text and "{include}" not in text
    published = {copy.stem for copy in (site[0] / "reference").glob("**/notebooks/*.ipynb")}
    assert len(published) >= 10
    assert published <= {page.stem for page in (site[0] / "pages/course").glob("*.html")}
    for name in ("scenes-reproduce", "scenes-compare", "scenes-models", "f8k_regions-evidence", "scenes-fidelity",
                 "clips-videos", "published"):  # fmt: skip
        assert "<table" in (site[0] / f"pages/results/{name}.html").read_text(encoding="utf-8")
    assert "Verdict" in (site[0] / "pages/results/scenes-reproduce.html").read_text(encoding="utf-8")
    assert "every image five times" in (site[0] / "pages/fidelity.html").read_text(encoding="utf-8")


def test_a_page_shows_the_figure_of_its_own_results(site):
    figures = {"scenes-reproduce": "figures/recall_curves.png", "f8k_regions-evidence": "f8k_regions/score_ranges.png"}
    for page, figure in figures.items():
        text = (site[0] / f"pages/results/{page}.html").read_text(encoding="utf-8")
        (shown,) = re.findall(rf'src="\.\./\.\./(_images/{Path(figure).stem}-\w+\.png)"', text)
        assert (site[0] / shown).read_bytes() == (site[0] / "reference" / figure).read_bytes()


def test_the_start_page_says_what_was_found(site):
    text = (site[0] / "index.html").read_text(encoding="utf-8")
    summary = json.loads((site[0] / "reference/summary.json").read_text(encoding="utf-8"))
    rsum = {loss: found["metrics"]["rsum"]["mean"] for loss, found in summary["losses"].items()}
    for words in (
        "not run: no features at hand", "+8.5", f"{rsum['polynomial'] - rsum['triplet']:+.1f}",
        summary["comparison"]["verdict"],
        "better with 2 of 9 models, worse with 1", "weight_curves-", "None so far",
        "below its published 452.2",
    ):  # fmt: skip
        assert words in text
    plain = re.sub("<[^>]+>", "", text)
    assert "make reproduce" in plain and "from uwml_lib.losses import PolynomialLoss" in plain


def test_a_page_of_results_says_its_command_and_the_course_its_questions(site):
    for page, command in (
        ("scenes-models", "make models"),
        ("f8k_regions-evidence", "make evidence DATASET=f8k_regions"),
    ):
        text = (site[0] / f"pages/results/{page}.html").read_text(encoding="utf-8")
        assert f'<span class="pre">{command.split()[-1]}</span></code>' in text and 'results.html#the-rule"' in text
        assert "sd-summary-text" in text, "the runs are folded"
    course = (site[0] / "pages/course.html").read_text(encoding="utf-8")
    assert "What does a loss do to a pair, and to a training?" in course
    assert course.count("02_training.html") >= 2  # in the table and in the navigation


def test_no_table_is_left_as_text(site):
    for page in (site[0] / "pages").rglob("*.html"):
        shown = re.sub(r"<pre.*?</pre>|<code.*?</code>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert "|:--" not in shown and "|---" not in shown and "&lt;details" not in shown, page


def test_terms_lead_to_the_glossary_from_every_chapter(site):
    for page in ("use_the_loss", "your_data", "fidelity", "course/05_weight_functions", "results/scenes-compare"):
        text = (site[0] / f"pages/{page}.html").read_text(encoding="utf-8")
        assert re.search(r'class="[^"]*kit-term[^"]*" href="[./]*glossary.html#term-', text), page


def test_terms_in_another_sense_lead_nowhere(site):
    text = (site[0] / "pages/api/losses.html").read_text(encoding="utf-8")
    assert "Cross entropy" in text and "glossary.html#term-entropy" not in text


@pytest.mark.parametrize("module", [module for module in ROOMS if "." not in module])
def test_the_examples_of_the_reference_work(site, module):
    room = import_module(f"uwml_lib.{module}")
    found = doctest.testmod(room, verbose=False)
    assert found.failed == 0
    if found.attempted:
        assert "&gt;&gt;&gt; " in (site[0] / f"pages/api/{module}.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", ROOMS)
def test_every_public_name_is_in_the_reference(site, module):
    page = Page(site[0] / f"pages/api/{module}.html")
    places = {place.rpartition(".")[2] for place in page.places}
    assert {*public_names(module)} <= places


def test_search_finds_the_dead_zone_in_a_notebook_and_in_the_glossary(site):
    text = (site[0] / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))

    def pages(word: str) -> set[str]:
        found = [index[where].get(word, []) for where in ("terms", "titleterms")]  # in a title is not again in terms
        return {index["docnames"][n] for of in found for n in (of if isinstance(of, list) else [of])}

    assert {"pages/course/05_weight_functions", "pages/glossary"} <= pages("dead") & pages("zone")


@pytest.fixture
def visit(offline, site):
    """Open a page with the network off; at the end nothing outside the reports may have been asked for."""

    def open_page(page, width=1440, **options):
        tab = offline.open(f"{site[0].as_uri()}/{page}", width, **options)
        tab.evaluate("window.MathJax?.startup?.promise")
        tab.evaluate(SETTLED)
        return tab

    yield open_page
    assert [url for url in offline.asked if not url.startswith((site[0].as_uri(), "data:"))] == []


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_over_no_screen(visit, page):
    for width in (375, 1440):
        tab = visit(page, width)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
@pytest.mark.parametrize("page", ["pages/course/05_weight_functions.html", "pages/api/losses.html"])
def test_all_formulas_are_set(visit, page):
    tab = visit(page)
    assert tab.locator("mjx-container").count() > 10
    assert tab.locator("mjx-merror, [data-mjx-error]").count() == 0
    text = tab.evaluate("[...document.querySelectorAll('article p, article dd')].map(x => x.innerText).join(' ')")
    assert not re.search(r"\$[^$]+\$|\\\\\w+\{", text)


@pytest.mark.slow
def test_code_can_be_copied(visit):
    tab = visit("pages/course/02_training.html")
    # The first in the page may be in a folded cell.
    tab.locator("button.copybtn:visible").first.focus()
    tab.keyboard.press("Enter")
    tab.wait_for_selector("button.copybtn.success")


@pytest.mark.slow
def test_a_search_finds_pages_without_a_server(visit):
    tab = visit("search.html?q=dead+zone")
    tab.wait_for_selector("#search-results li a")
    found = tab.evaluate("[...document.querySelectorAll('#search-results li a')].map(x => x.href)")
    assert any("05_weight_functions" in link for link in found) and any("glossary" in link for link in found)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_legible_and_accessible(visit, page, scheme):
    """Nothing serious by axe, contrast among it, in light and, on a telephone, in dark."""
    tab = visit(page, 375 if scheme == "dark" else 1440, color_scheme=scheme)
    tab.evaluate((resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    # It would read the style sheet again, which a page of a file may not.
    options = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21aa"]}, "preload": False}
    found = tab.evaluate("options => axe.run(document, options)", options)
    assert len(found["passes"]) > 10
    serious = [rule for rule in found["violations"] if rule["impact"] in ("serious", "critical")]
    assert [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in serious] == []
