"""A report as data, rendered to Markdown, of which Sphinx makes the pages; nothing parses its own numbers again."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

RUNS = "### Runs\n\n"
"""Stands before the table of runs."""
FINDINGS = "findings.json"
"""File of published results: study -> the findings and the outcomes of its report."""


@dataclass(frozen=True)
class Report:
    """What a study found.

    title: one line. about: paragraphs before the table. table: the numbers, with a named index. notes: paragraphs after
    it. verdict: who is ahead, one clause, or "" where that is not the question; decided: whether somebody is. findings:
    whole sentences for those who read nothing else. outcomes: what was compared -> the loss that is ahead, "" where
    neither is, "collapsed" where there is nothing to compare. runs: the table of the runs behind it; commands: what
    trained them, a sentence below it. further: other tables by their headings, after the notes. data: everything the
    report states, as values of JSON. In paragraphs, backticks mark code.
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
    further: dict[str, pd.DataFrame] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    commands: str = ""

    def to_markdown(self) -> str:
        """The report in Markdown, without the runs."""
        verdict = [f"**Verdict: {self.verdict}.**"] if self.verdict else []
        parts = [f"## {plain_markdown(self.title)}", *self.about, table_markdown(self.table), *verdict, *self.notes]
        for heading, table in self.further.items():
            parts += [f"### {heading}", table_markdown(table)]
        return "\n\n".join(parts) + "\n"

    def with_runs(self) -> str:
        """The report in Markdown with the runs behind it, each linked to its folder in `runs`."""
        runs = table_markdown(self.runs.rename(index="[{0}](runs/{0})".format), floatfmt=".1f")
        return "\n\n".join([f"{self.to_markdown()}\n{RUNS}{runs}", *filter(None, [self.commands])]) + "\n"


def table_markdown(table: pd.DataFrame, **options: Any) -> str:
    """A table in Markdown, whose cells may hold what parts columns, and text that looks like numbers, such as digests.

    options: of tabulate.
    """

    def shown(cell: Any) -> Any:
        return cell.replace("|", r"\|") if isinstance(cell, str) else cell

    if table.empty:
        return table.to_markdown(**options)
    first = int(options.get("index", True))  # of the columns; before them stands the index
    text = [*range(first), *(first + place for place, kind in enumerate(table.dtypes) if not is_numeric_dtype(kind))]
    found = table.map(shown).rename(index=shown, columns=shown)
    return found.to_markdown(disable_numparse=text, **options)


def plain_markdown(text: str) -> str:
    """A text, such as the name of somebody's data set, for Markdown to show as it is."""
    return re.sub(r"[\\`*<>&\[\]|]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)


WINNERS = {
    "polynomial": "the polynomial loss is better", "triplet": "the triplet loss is better",
    "": "neither loss is shown to be better", "collapsed": "the trainings collapsed",
}  # fmt: skip
"""Outcome of a comparison -> its words."""


def in_short(outcomes: Mapping[str, str]) -> str:
    """Count, over all that was compared, which loss is better; "" where nothing was. outcomes: as of a report."""
    if not outcomes:
        return ""
    if len(outcomes) == 1:
        return f"One comparison was made, of one model on one data set: {WINNERS[next(iter(outcomes.values()))]}."
    counts = Counter(outcomes.values())
    said = "; ".join(f"{text} in {counts[winner]}" for winner, text in WINNERS.items() if counts[winner])
    return (
        f"{len(outcomes)} comparisons were made, each of one model on one data set, at one setting for both losses or "
        f"with each loss tuned: {said}."
        + " In most, the difference is within what other seeds or test items would change."
        * (counts[""] > len(outcomes) / 2)
        + " Where it is decided, it goes either way." * bool(counts["polynomial"] and counts["triplet"])
    )
