"""The pages in a real browser with the network off: nothing is asked for, nothing fails, nothing runs over."""

import re
import shutil
from importlib import resources
from pathlib import Path
from urllib.parse import unquote

import pytest
from filelock import FileLock

from tests.command_line import uwml
from uwml_lib.support.paths import PERFORMANCE

PAGES = (
    "index.html", "weight_explorer.html", "performance.html", "scenes_smoke/02_training.html",
    "scenes_smoke/04_weight_functions.html", "scenes_smoke/08_other_models.html", "clips_smoke/09_video_text.html",
)  # fmt: skip
SCHEMES = ("light", "dark")


@pytest.fixture(scope="session")
def reports(smoke) -> Path:
    """The pages of the main job, and that of the published benchmarks."""
    reports = smoke[0] / "reports"
    if not (reports / "performance.html").exists():
        with FileLock(smoke[0] / "performance.lock"):
            shutil.copytree(PERFORMANCE, reports / "reference" / PERFORMANCE.name, dirs_exist_ok=True)
            assert uwml(smoke[0], "report", "--dataset", "scenes_smoke").returncode == 0
    return reports


@pytest.fixture(scope="session")
def every_study(reports, compared, modelled, filmed) -> Path:
    """The same folder once other studies have run in it."""
    return reports


def every_page(reports: Path) -> list[Path]:
    return [*reports.glob("*.html"), *reports.glob("*/*.html"), *reports.glob("pages/*/*.html")]


@pytest.fixture
def visit(browser, every_study):
    """Open a page with the network off; at the end nothing outside the reports may have been asked for, nor failed."""
    contexts, asked, errors = [], [], []

    def open_page(page, width=1440, **options):
        context = browser.new_context(offline=True, viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url.partition("#")[0]))
        tab.on("pageerror", lambda error: errors.append(f"{page}: {error}"))
        tab.on("requestfailed", lambda request: errors.append(f"{page}: {request.url} failed"))
        tab.on("console", lambda said: errors.append(f"{page}: {said.text}") if said.type == "error" else None)
        tab.goto((every_study / page).as_uri())
        tab.evaluate("window.MathJax?.startup?.promise")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
    assert [url for url in asked if not url.startswith((every_study.as_uri(), "data:"))] == []


def test_every_link_and_image_leads_somewhere(every_study):
    """Without a browser: files, and places within a page."""
    pages = every_page(every_study)
    assert len(pages) > 40
    for page in pages:
        text = re.sub("<script.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r'(?:href|src)="([^"]+)"', text):
            path, _, place = target.partition("#")
            if not re.match(r"[a-z]+:", path):
                assert not path or (page.parent / unquote(path)).exists(), f"{page}: {target}"
                there = f'id="{place}"' in text or f'id="{unquote(place)}"' in text  # as browsers look for it
                assert path or not place or there, f"{page}: {target}"
            else:
                assert path.startswith(("https:", "data:")), f"{page}: {target}"


def test_a_page_of_a_notebook_has_its_name_and_leads_to_all_others(every_study):
    text = (every_study / "scenes_smoke/02_training.html").read_text(encoding="utf-8")
    assert "<title>2 · Training: what a loss does to a pair</title>" in text
    for page in ("scenes_smoke/01_data_preparation", "clips_smoke/09_video_text", "scenes_smoke/10_your_own_model"):
        assert f'href="../{page}.html"' in text
    assert '<a href="../performance.html">How fast</a>' in text
    assert "record(" not in text  # what is for the machine alone


def test_every_run_has_a_page_with_its_curves(reports):
    runs = {path.parent.name for path in reports.glob("runs/*/*/results.json")}
    pages = {path.stem: path for path in reports.glob("pages/*/*.html")}
    assert runs == set(pages)
    for page in pages.values():
        text = page.read_text(encoding="utf-8")
        assert text.count("<polyline") == 4
        assert "nan" not in text.lower()


def test_the_landing_page_says_what_was_found(every_study):
    text = (every_study / "index.html").read_text(encoding="utf-8")
    for words in (
        "triplet loss",
        "polynomial loss",
        "<strong>not</strong> run here",
        "from uwml_lib.losses import PolynomialLoss",
        "not the classification PolyLoss",
        "Verdict",
        "commit",
        "How long",
    ):
        assert words in text
    assert text.count("<details>") >= 4


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_over_no_screen(visit, page):
    for width in (375, 1440):
        tab = visit(page, width)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_all_formulas_are_set(visit):
    tab = visit("scenes_smoke/04_weight_functions.html")
    assert tab.locator("mjx-container").count() > 10
    assert tab.locator("mjx-merror, [data-mjx-error]").count() == 0
    text = tab.evaluate("[...document.querySelectorAll('.jp-MarkdownOutput')].map(x => x.innerText).join(' ')")
    assert not re.search(r"\$[^$]+\$|\\\\\w+\{", text)


@pytest.mark.slow
def test_code_can_be_copied(visit):
    tab = visit("scenes_smoke/02_training.html")
    button = tab.locator(".copy").first
    button.focus()
    button.press("Enter")
    tab.wait_for_function("document.querySelector('.copy').textContent === 'Copied'")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
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
