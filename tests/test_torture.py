"""What the attacks found, from the log of the tests to the sentence of the reports."""

import json
from xml.etree import ElementTree

import pytest

from tests import torture
from uwml_lib.reports.records import reliability_text
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, write_json

FOUND = {
    "kills": {"train": {"killed": 20, "lost": 0}, "data": {"killed": 3, "lost": 1}},
    "mutations": {"tried": 1234, "wrong": 2, "unclear": 3, "hung": 4},
    "tests": {"tests": 9, "failures": 1, "errors": 1},
}


def test_what_the_attacks_found_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RELIABILITY", tmp_path / "reliability.json")
    assert reliability_text() == ""
    write_json(tmp_path / "reliability.json", FOUND)
    text = reliability_text()
    assert "killed 23 times at random moments (train, data), results lost or changed: 1" in text
    assert "1,234 damaged files and settings, wrong results: 2, unclear errors: 3, hangs: 4" in text
    assert "9 attacks as tests, a full disk and denied permissions among them, failed: 2." in text
    write_json(tmp_path / "reliability.json", {**FOUND, "tests": {**FOUND["tests"], "skipped": 3}})
    assert "9 attacks as tests (3 skipped), a full" in reliability_text()


@pytest.mark.parametrize("content", ["{}", '{"kills": []}', '{"kills": {"train": 3}}', "incomplete", "words"])
def test_figures_of_another_shape_are_one_sentence(tmp_path, monkeypatch, content):
    path = tmp_path / "reliability.json"
    monkeypatch.setattr(paths, "RELIABILITY", path)
    if content == "incomplete":
        content = json.dumps({**FOUND, "mutations": {"tried": 5}})
    elif content == "words":
        content = json.dumps({**FOUND, "mutations": {**FOUND["mutations"], "wrong": "none"}})
    path.write_text(content)
    with pytest.raises(UWMLError, match="reliability.json: found .*, expected the figures of `make torture`"):
        reliability_text()


def log_of_attacks(change=lambda records: None):
    """Such a log as pytest writes of the attacks: 7 kills, 10 mutations, and 30 tests."""
    records = [
        ("kills", {"command": command, "killed": 1, "alone": 0, "lost": 0, "left running": 0})
        for command in torture.COMMANDS
    ]
    records[0][1]["killed"] = 3
    outcome = {"right": 1, "clear error": 4, "wrong": 0, "unclear": 0, "hung": 0}
    records += [("mutations", {"tried": 5, **outcome}), ("mutations", {"tried": 5, **outcome})]
    change(records)
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", tests="30", failures="1", errors="0", skipped="2")
    for name, value in records:
        ElementTree.SubElement(suite, "property", name=name, value=repr(value))
    return ElementTree.ElementTree(root)


def test_the_figures_of_the_attacks(tmp_path, monkeypatch):
    found = torture.figures(log_of_attacks(), 7, 10)
    assert list(found["kills"]) == list(torture.COMMANDS)
    assert sum(item["killed"] for item in found["kills"].values()) == 7
    assert found["mutations"]["tried"] == 10
    assert found["tests"] == {"tests": 30, "failures": 1, "errors": 0, "skipped": 2}
    monkeypatch.setattr(paths, "RELIABILITY", tmp_path / "reliability.json")
    write_json(tmp_path / "reliability.json", found)
    assert "killed 7 times" in reliability_text()
    assert "30 attacks as tests (2 skipped), a full" in reliability_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda records: records.pop(1), "no figures of the kills of train --workers 2: did a test process crash"),
        (lambda records: records.clear(), "no figures of the kills of train, train --workers 2, data, reproduce, rep"),
        (lambda records: records.pop(-1), "found 5 mutations, expected 10"),
        (lambda records: records[0][1].update(killed=1), "found 5 kills, expected 7"),
        (lambda records: records[2][1].pop("lost"), "of kills, expected a number lost"),
        (lambda records: records[5][1].pop("hung"), "of mutations, expected a number hung"),
        (lambda records: records[5][1].update(right=0), "found 9 mutations with an outcome, expected 10"),
    ],
)
def test_figures_that_are_missing_are_no_figures(change, words):
    with pytest.raises(ValueError, match=words):
        torture.figures(log_of_attacks(change), 7, 10)


@pytest.mark.parametrize("code", [0, 1, 4])
def test_without_figures_nothing_is_written(tmp_path, monkeypatch, capsys, code):
    """As if every test process had crashed, or pytest itself."""
    monkeypatch.setattr(paths, "RELIABILITY", tmp_path / "reliability.json")
    monkeypatch.setattr(torture.sys, "argv", ["torture"])
    monkeypatch.setattr(torture, "provenance", lambda device: {})
    monkeypatch.setattr(torture.subprocess, "run", lambda *_, **__: torture.argparse.Namespace(returncode=code))
    assert torture.main() == (code or 3)
    assert "is left as it was" in capsys.readouterr().err
    assert not (tmp_path / "reliability.json").exists()


def test_figures_name_the_source_that_the_attacks_began_with(tmp_path, monkeypatch, capsys):
    order = []

    def attack(command, **options):
        order.append((options["env"]["UWML_KILLS"], options["env"]["UWML_MUTATIONS"]))
        log_of_attacks().write(next(word for word in command if "--junitxml" in word).partition("=")[2])
        return torture.argparse.Namespace(returncode=1)

    monkeypatch.setattr(torture, "provenance", lambda device: order.append("source") or {"commit": "abc"})
    monkeypatch.setattr(torture.subprocess, "run", attack)
    monkeypatch.setattr(torture.sys, "argv", ["torture", "--kills", "7", "--mutations", "10"])
    monkeypatch.setattr(paths, "RELIABILITY", tmp_path / "reliability.json")
    assert torture.main() == 1
    assert order == ["source", ("7", "10")]
    assert read_json(tmp_path / "reliability.json")["provenance"] == {"commit": "abc", "command": "make torture"}
    assert "failed: 1." in capsys.readouterr().out


@pytest.mark.parametrize("value", ["abc", "-1", "0", "1.5", "", "²"])
@pytest.mark.parametrize("option", ["--kills", "--mutations"])
def test_how_often_is_a_whole_number(monkeypatch, capsys, option, value):
    monkeypatch.setattr(torture.sys, "argv", ["torture", f"{option}={value}"])
    with pytest.raises(SystemExit) as stop:
        torture.main()
    assert stop.value.code == 2
    assert f"argument {option}: found {value!r}, expected a whole number of at least 1" in capsys.readouterr().err
