"""The course lists what is there, and what to run first for how long."""

import re

import nbformat

from uwml_lib.reports.records import step_seconds
from uwml_lib.studies import STUDIES, course, course_table
from uwml_lib.studies.course import COURSE, ROUGHLY
from uwml_lib.support.files import write_json
from uwml_lib.support.paths import NOTEBOOKS


def test_every_notebook_is_listed_in_order_and_needs_a_study_that_there_is():
    stems = [lesson.notebook for lesson in COURSE]
    assert stems == sorted(stems)
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} <= {*stems}
    assert {lesson.needs for lesson in COURSE} - {""} == {*ROUGHLY} <= {*STUDIES}


def test_times_are_the_measured_ones_where_there_are_any(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "reference_folder", lambda dataset: tmp_path / dataset)
    write_json(tmp_path / "scenes/durations.json", {"reproduce": {"seconds": {"data": 0.5, "training": 524.5}}})
    table = course_table().set_index("notebook")
    assert [*table.loc["04_evaluation"]][1:] == ["`make reproduce`", "8 min 45 s"]
    assert [*table.loc["09_fidelity"]][1:] == ["`make fidelity`", "about 10 min"]
    assert [*table.loc["00_start_here"]][1:] == ["–", "–"]
    write_json(tmp_path / "clips/durations.json", {"videos": {"seconds": {"training": 61}}})
    assert course_table().set_index("notebook").loc["11_video_text", "that takes"] == "1 min 1 s"


def test_no_time_was_noted(tmp_path):
    assert step_seconds(tmp_path, "reproduce") == {}
    write_json(tmp_path / "durations.json", {"reproduce": {}})
    assert step_seconds(tmp_path, "reproduce") == step_seconds(tmp_path, "models") == {}


def test_the_ten_words_of_the_start_are_terms_of_the_glossary():
    cells = nbformat.read(NOTEBOOKS / "00_start_here.ipynb", as_version=4).cells
    (box,) = [cell.source for cell in cells if "| word | meaning |" in cell.source]
    words = re.findall(r"^\| ([^|]+?) \| ", box.partition("|---|---|\n")[2], flags=re.MULTILINE)
    assert len(words) == 10
    glossary = (NOTEBOOKS / "GLOSSARY.md").read_text(encoding="utf-8")
    terms = {
        term for line in re.findall(r"^\| ([^|]+) \|", glossary, flags=re.M) for term in re.split(r"[,()] ?", line)
    }
    assert {*words} <= {term.strip() for term in terms}
