"""What was published, in a table and in sentences, for none, one and many comparisons, and for damaged files."""

import pytest

from uwml_lib.reports.site.findings import findings_sentences, findings_table, sentences_of
from uwml_lib.support import paths
from uwml_lib.support.files import write_json, write_text

TITLES = {"models": "Models"}
COMPARISON = {"over_seeds": {"difference": 1.0, "low": None, "high": None}, "verdict": "not decided: one seed"}


@pytest.fixture
def reference(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "REFERENCE", tmp_path)
    return tmp_path


def rows() -> list[list[str]]:
    lines = findings_table(TITLES, pytest.fail).splitlines()[4:]  # below the heading and what the paper says
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_nothing_was_published(reference):
    assert rows() == []
    assert findings_sentences(pytest.fail) == []


def test_one_seed_has_no_interval(reference):
    write_json(reference / "f8k/summary.json", {"comparison": COMPARISON})
    (row,) = rows()
    found = "+1.0 (no interval from one value)"
    assert row == ["SCAN i2t on photographs, Flickr8k", "–", found, "not decided: one seed"]


@pytest.mark.parametrize(
    ("outcomes", "found", "certain"),
    [
        (["", ""], "better with 0 of 2 models, worse with 0", "not decided with 2; intervals corrected for 2"),
        (
            ["polynomial", ""],
            "better with 1 of 2 models, worse with 0",
            "not decided with 1; intervals corrected for 2",
        ),
        (["triplet"] * 3, "better with 0 of 3 models, worse with 3", "not decided with 0; intervals corrected for 3"),
    ],
)
def test_models_are_counted(reference, outcomes, found, certain):
    entry = {"findings": ["One <b>.", "Two."], "outcomes": {str(n): winner for n, winner in enumerate(outcomes)}}
    alone = {"findings": ["Three."], "outcomes": {"one": ""}}  # which has a row of its own
    write_json(reference / "findings.json", {"models": entry, "reproduce": alone})
    assert rows() == [["Models: scenes of digits", "–", found, f"{certain} comparisons"]]
    assert findings_sentences(pytest.fail) == [r"One \<b\>.", "Two.", "Three."]
    assert findings_sentences(pytest.fail, ["reproduce", "evidence"]) == ["Three."]
    assert sentences_of(reference, "models", pytest.fail) == [r"One \<b\>.", "Two."]


def test_a_damaged_file_is_left_out_and_said(reference):
    said: list[str] = []
    write_text(reference / "findings.json", "[1]")
    write_json(reference / "summary.json", {"comparison": None})
    assert len(findings_table(TITLES, said.append).splitlines()) == 4
    assert len(said) == 2 and all("left out of the pages" in line for line in said)
