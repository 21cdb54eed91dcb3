"""Bars are for people: none in a pipe, none for what is quick, none in notebooks that run unattended."""

import io
import sys
import time

import pytest

from uwml_lib.support.progress import duration, progress


class Screen(io.StringIO):
    def isatty(self):
        return True


def slowly(items):
    for item in items:
        time.sleep(0.6)
        yield item


def shown(monkeypatch, items, screen):
    monkeypatch.setattr(sys, "stderr", screen)
    assert list(progress(items, "counting sheep")) == [0, 1, 2]
    return screen.getvalue()


def test_a_bar_on_a_terminal_once_a_second_has_passed(monkeypatch):
    monkeypatch.delenv("UWML_HEADLESS", raising=False)
    assert "counting sheep" in shown(monkeypatch, slowly(range(3)), Screen())
    assert shown(monkeypatch, range(3), Screen()).strip() == ""
    assert shown(monkeypatch, slowly(range(3)), io.StringIO()) == ""


def test_nothing_where_nobody_looks_or_without_tqdm(monkeypatch):
    monkeypatch.setenv("UWML_HEADLESS", "1")
    assert shown(monkeypatch, slowly(range(3)), Screen()) == ""
    monkeypatch.delenv("UWML_HEADLESS")
    monkeypatch.setenv("RANK", "1")
    assert shown(monkeypatch, slowly(range(3)), Screen()) == ""
    monkeypatch.delenv("RANK")
    monkeypatch.setattr("uwml_lib.support.progress.find_spec", lambda name: None)
    assert shown(monkeypatch, slowly(range(3)), Screen()) == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (130, "2 min 10 s"), (3599.7, "1 h 0 min"), (3900, "1 h 5 min")]
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words
