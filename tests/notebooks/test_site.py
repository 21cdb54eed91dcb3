"""The pages of runs of one's own, beside what is published: those of the pipeline in smoke size."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

DATA = "pages/runs/scenes_smoke"


@pytest.fixture(scope="session")
def reports(smoke) -> Path:
    return smoke[0] / "reports"


def text_of(reports: Path, page: str) -> str:
    return (reports / page).read_text(encoding="utf-8")


def check_links(reports: Path) -> None:
    for page in [reports / "index.html", *reports.glob("pages/**/*.html")]:
        text = re.sub("<script.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r'(?:href|src)="([^"]+)"', text):
            path = target.partition("#")[0].partition("?")[0]
            if not re.match(r"[a-z]+:", path):
                assert not path or (page.parent / unquote(path)).exists(), f"{page}: {target}"


def test_every_run_has_a_page_with_its_curves(reports):
    runs = {path.parent.name for path in reports.glob("runs/*/*/results.json")}
    pages = {path.stem: path for path in reports.glob("pages/runs/*/*-seed*.html")}
    assert runs == set(pages)
    for page in pages.values():
        text = page.read_text(encoding="utf-8")
        assert text.count("<polyline") == 4
        assert "nan" not in "".join(re.findall(r"<svg.*?</svg>", text)).lower()


def test_the_page_of_a_study_has_its_verdict_its_runs_and_its_notebooks(reports):
    text = text_of(reports, f"{DATA}/reproduce.html")
    for words in ("Verdict", "How long the command takes", "-seed0-", "course/02_training.html"):
        assert words in text
    assert 'href="runs/scenes_smoke/reproduce.html"' in text_of(reports, "pages/results.html")


def test_the_course_shows_what_was_executed_here_where_nothing_is_published(reports):
    text = text_of(reports, "pages/course/02_training.html")
    assert "<title>2 · Training: what a loss does to a pair" in text
    assert 'href="01_data_preparation.html"' in text
    assert "record(" not in text  # what is for the machine alone


def test_every_link_leads_somewhere(reports):
    check_links(reports)


def test_the_pages_of_every_study(reports, compared, modelled, filmed):
    check_links(reports)
    for page in ("scenes_smoke/compare", "scenes_smoke/models", "clips_smoke/videos"):
        assert "<table" in text_of(reports, f"pages/runs/{page}.html")
    assert 'href="../' in text_of(reports, "pages/course/11_video_text.html")
