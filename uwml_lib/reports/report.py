"""A report as data, rendered to Markdown and to HTML from the same object; nothing parses its own Markdown again."""

import html
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Report:
    """What a study found.

    title: one line. about: paragraphs before the table. table: the numbers, with a named index. notes: paragraphs after
    it. verdict: who is ahead, one clause, or "" where that is not the question; decided: whether somebody is. findings:
    whole sentences for those who read nothing else. outcomes: what was compared -> the loss that is ahead, "" where
    neither is, "collapsed" where there is nothing to compare. runs: the table of the runs behind it. data: everything
    the report states, as values of JSON. In paragraphs, backticks mark code.
    """

    title: str
    table: pd.DataFrame
    runs: pd.DataFrame
    about: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    verdict: str = ""
    decided: bool = False
    findings: tuple[str, ...] = ()
    outcomes: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)

    def to_markdown(self) -> str:
        """The report in Markdown, without the runs."""
        verdict = [f"**Verdict: {self.verdict}.**"] if self.verdict else []
        parts = [f"## {self.title}", *self.about, self.table.to_markdown(), *verdict, *self.notes]
        return "\n\n".join(parts) + "\n"

    def with_runs(self) -> str:
        """The report in Markdown with the runs behind it, each linked to its folder in `runs`."""
        return f"{self.to_markdown()}\n### Runs\n\n{self.runs.rename(index='[{0}](runs/{0})'.format).to_markdown()}\n"

    def to_html(self, link: str = "runs/{0}") -> dict[str, Any]:
        """The parts as HTML, for a page's template; link: to a run's page, by its name."""
        runs = self.runs.rename(index=lambda name: f'<a href="{link.format(name)}">{html.escape(name)}</a>')
        return {
            "title": self.title, "table": self.table.reset_index().to_html(index=False, border=0),
            "runs": runs.reset_index().to_html(index=False, border=0, escape=False), "count": len(runs),
            "about": [*map(paragraph_html, self.about)], "notes": [*map(paragraph_html, self.notes)],
            "verdict": paragraph_html(self.verdict), "decided": self.decided,
        }  # fmt: skip


def paragraph_html(text: str) -> str:
    """A sentence of Markdown for a page: what stands in backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text))


def in_short(reports: Iterable[Report]) -> str:
    """Count, over all models and data sets, which loss is ahead; "" where nothing was compared.

    What two studies compared is counted once, as the later one has it.
    """
    outcomes = {what: winner for report in reports for what, winner in report.outcomes.items()}
    if not outcomes:
        return ""
    words = {
        "polynomial": "the polynomial loss is ahead", "triplet": "the triplet loss is ahead",
        "": "neither loss is shown to be ahead", "collapsed": "the trainings collapsed",
    }  # fmt: skip
    if len(outcomes) == 1:
        return f"One comparison was made, of one model on one data set: {words[next(iter(outcomes.values()))]}."
    counts = Counter(outcomes.values())
    said = "; ".join(f"{text} in {counts[winner]}" for winner, text in words.items() if counts[winner])
    return f"{len(outcomes)} comparisons were made, each of one model on one data set: {said}."
