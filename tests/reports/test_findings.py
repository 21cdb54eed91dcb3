"""What was published, in a table and in sentences, for none, one and many comparisons, and for damaged files."""

import shutil

import pytest

from tests.tables import cells
from uwml_lib.reports.site.findings import answers, conclusion, findings_sentences, findings_table, sentences_of
from uwml_lib.support import paths
from uwml_lib.support.files import write_json, write_text

TITLES = {"models": "Models"}
COMPARISON = {"over_seeds": {"difference": 1.0, "low": None, "high": None}, "verdict": "not decided: one seed"}
LOSSES = {"triplet": {"runs": {"a": ""}}}


@pytest.fixture
def reference(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "REFERENCE", tmp_path)
    return tmp_path


def rows(linked: bool = False) -> list[list[str]]:
    return cells(findings_table(TITLES, pytest.fail, linked))[4:]  # below the heading and what the paper says


def test_nothing_was_published(reference):
    assert rows() == [] and conclusion(pytest.fail) == ""
    assert findings_sentences(pytest.fail) == []


def test_one_seed_has_no_interval(reference):
    write_json(reference / "f8k_regions/summary.json", {"comparison": COMPARISON, "losses": LOSSES})
    (row,) = rows()
    found = "+1.0 (no interval from one value)"
    assert row == ["SCAN i2t on photographs of Flickr8k", "not decided", found, "–", "1", "–"]


def test_losses_that_were_tuned_have_both_intervals_and_lead_to_their_page(reference):
    def against(winner, low, family=1):
        ends = {"difference": 2.0, "low": low, "high": 3.0}
        over_images = {"difference": 2.0, "low": 0.5, "high": 3.5}
        return {"over_seeds": ends, "over_images": over_images, "winner": winner, "corrected_for": family}

    runs = dict.fromkeys(map(str, range(5)))
    groups = [
        {"model": "SCAN", "loss": "triplet", "runs": runs, "against_triplet": None},
        {"model": "SCAN", "loss": "polynomial", "runs": runs, "against_triplet": against("", -1.0)},
        {"model": "SCAN", "loss": "polynomial_fitted", "runs": runs, "against_triplet": against("a", 1.0, family=4)},
        {"model": "VSE", "loss": "polynomial", "runs": runs, "against_triplet": against("b", 1.0)},
    ]
    write_json(reference / "compare.json", {"groups": groups})
    released, fitted = rows(linked=True)
    page, what = "(/pages/results/scenes-compare.md)", "SCAN i2t on scenes of digits, each loss tuned"
    assert released == [f"[{what}]{page}", "not decided", "+2.0 [-1.0, +3.0]", "[+0.5, +3.5]", "5", "–"]
    assert fitted[:2] == [f"[{what}, coefficients fitted]{page}", "polynomial is better; corrected for 4 comparisons"]


def test_the_answer_is_of_losses_tuned_alike(reference):
    asked = "**Is the polynomial loss better than the triplet loss on"
    other = {"findings": ["Else."], "outcomes": {}}
    write_json(reference / "findings.json", {"reproduce": other})
    assert answers(pytest.fail) == []
    mine = {"evidence": {"findings": ["On _mine_: so.", "More."], "outcomes": {"SCAN": ""}}}
    write_json(reference / "_mine_/findings.json", mine)
    (said,) = answers(pytest.fail)
    assert said == rf"{asked} \_mine\_? That is not decided.** On \_mine\_: so.", "shown as it is; of no photographs"
    shutil.rmtree(reference / "_mine_")
    gains = "The published gains of the polynomial loss, so."
    alike = {"findings": ["On f8k_regions: so.", "More.", gains], "outcomes": {"SCAN": "triplet", "VSE": ""}}
    write_json(reference / "f8k_regions/findings.json", {"reproduce": other, "evidence": alike})
    data, no = "photographs of Flickr8k", "No, the triplet loss is better"
    assert answers(pytest.fail) == [f"{asked} {data}? {no}.** On {data}: so. {gains}"]
    tied = {**alike, "findings": ["On f8k_regions, +1.2; no difference shown: both intervals include 0.", gains]}
    write_json(reference / "f8k_regions/findings.json", {"evidence": {**tied, "outcomes": {"SCAN": ""}}})
    (said,) = answers(pytest.fail)
    assert said == f"{asked} {data}? No difference is shown.** On {data}, +1.2; both intervals include 0. {gains}"


@pytest.mark.parametrize(
    ("outcomes", "found", "certain"),
    [
        (["", ""], "better with 0 of 2 models, worse with 0", "2 not decided; corrected for 2"),
        (["polynomial", ""], "better with 1 of 2 models, worse with 0", "1 not decided; corrected for 2"),
        (["triplet"] * 3, "better with 0 of 3 models, worse with 3", "0 not decided; corrected for 3"),
    ],
)
def test_models_are_counted(reference, outcomes, found, certain):
    entry = {"findings": ["One <b>.", "Two."], "outcomes": {str(n): winner for n, winner in enumerate(outcomes)}}
    alone = {"findings": ["Three."], "outcomes": {"one": ""}}  # which has a row of its own
    write_json(reference / "findings.json", {"models": entry, "reproduce": alone})
    assert rows() == [["Models: scenes of digits", f"{certain} comparisons", found, "–", "–", "–"]]
    assert conclusion(pytest.fail).startswith(f"{len(outcomes) + 1} comparisons were made, each of one model")
    mostly_undecided = [*outcomes, ""].count("") > (len(outcomes) + 1) / 2
    assert ("In most, the difference is within what other seeds" in conclusion(pytest.fail)) == mostly_undecided
    assert findings_sentences(pytest.fail) == [r"One \<b\>.", "Two.", "Three."]
    assert findings_sentences(pytest.fail, ["reproduce", "evidence"]) == ["Three."]
    assert sentences_of(reference, "models", pytest.fail) == [r"One \<b\>.", "Two."]


def test_what_is_decided_in_the_dense_form_alone_is_said_to_be(reference):
    outcomes = {"A, dense form on scenes": "triplet", "B on scenes": ""}
    write_json(reference / "findings.json", {"models": {"findings": [], "outcomes": outcomes}})
    assert rows()[0][2] == "better with 0 of 2 models, worse with 1; all of these in the dense form"
    write_json(reference / "findings.json", {"models": {"findings": [], "outcomes": outcomes | {"B": "polynomial"}}})
    assert rows()[0][2] == "better with 1 of 3 models, worse with 1"
    assert "not said of which variant" in cells(findings_table(TITLES, pytest.fail))[3][-1]


def test_a_damaged_file_is_left_out_and_said(reference):
    said: list[str] = []
    write_text(reference / "findings.json", "[1]")
    write_json(reference / "summary.json", {"comparison": None})
    assert len(findings_table(TITLES, said.append).splitlines()) == 4
    assert len(said) == 2 and all("left out of the pages" in line for line in said)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("findings.json", {"models": {"findings": "abc", "outcomes": []}}),
        ("findings.json", {"models": {"findings": [5], "outcomes": {"a": "other", "b": ""}}}),
        ("findings.json", {"models": {"findings": [None], "outcomes": {"a": None, "b": ""}}}),
        ("evidence.json", {"groups": []}),
    ],
)
def test_what_is_no_finding_is_left_out_and_said(reference, file, content):
    said: list[str] = []
    write_json(reference / file, content)
    assert conclusion(said.append) == "" and findings_sentences(said.append) == []
    assert len(findings_table(TITLES, said.append).splitlines()) == 4
    assert said and all(line.startswith(f"left out of the pages: {reference / file}: found") for line in said)


def test_an_interval_is_read_by_the_names_of_its_ends(reference):
    ends = {"high": 4.0, "low": -2.0, "difference": 1.0}
    comparison = {"over_seeds": ends, "over_images": {**ends, "low": None, "high": None}, "verdict": "not decided: no"}
    write_json(reference / "summary.json", {"comparison": comparison, "losses": {"triplet": {"runs": ["a"]}}})
    assert rows()[-1][2:4] == ["+1.0 [-2.0, +4.0]", "–"]
