"""What was published, as one table and as sentences: on the start page, among the results, and in the README."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from uwml_lib.evaluation.statistics import NAN, Interval
from uwml_lib.released.published import ROWS
from uwml_lib.reports.report import FINDINGS, plain_markdown, table_markdown
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json
from uwml_lib.support.progress import Say, counted

DATA = {
    "scenes": "scenes of digits", "clips": "videos of digits", "f8k": "photographs, Flickr8k",
    "f8k_regions": "photographs, Flickr8k by regions",
}  # fmt: skip
"""Folder of published results -> what the data are."""
IN_SHORT = ("reproduce", "evidence", "compare", "models")
"""Studies whose sentences stand on the start page."""
PAPER = {"SCAN i2t on Flickr30K": "f30k_{}_i2t_avg", "SCAN i2t on MSCOCO, 1K": "coco1k_{}_i2t_avg"}
"""What the paper compares -> names of the published numbers of both losses."""
Row = tuple[str, str, str, str]
Read = TypeVar("Read")


def findings_table(titles: Mapping[str, str], say: Say) -> str:
    """One table in Markdown: what the paper says, what was found here, how certain that is.

    titles: name of a study -> its title. What cannot be read is left out, and said.
    """
    rows = [*_of_the_paper()]
    for folder, dataset in _folders():
        data = DATA.get(dataset, plain_markdown(dataset))
        rows += _read(folder / "summary.json", partial(_two_losses, data), say)
        rows += _read(folder / FINDINGS, partial(_on_models, titles, data), say)
    columns = ["is the polynomial loss better than the triplet loss?", "published", "found here", "how certain"]
    return table_markdown(pd.DataFrame(rows, columns=columns), index=False, disable_numparse=True)


def findings_sentences(say: Say, studies: Sequence[str] | None = None) -> list[str]:
    """The sentences of all published reports, or of some studies, in Markdown."""
    return [
        plain_markdown(sentence)
        for folder, _ in _folders()
        for sentence in _read(folder / FINDINGS, partial(_sentences, studies), say)
    ]


def sentences_of(folder: Path, study: str, say: Say) -> list[str]:
    """The sentences of one published report, in Markdown."""
    return [*map(plain_markdown, _read(folder / FINDINGS, partial(_sentences, [study]), say))]


def _folders() -> list[tuple[Path, str]]:
    """Folders of published results, that of the scenes first, with what they are called."""
    others = sorted({file.parent for name in ("summary.json", FINDINGS) for file in paths.REFERENCE.glob(f"*/{name}")})
    return [(paths.REFERENCE, "scenes"), *((folder, folder.name) for folder in others)]


def _read(path: Path, rows: Callable[[Any], list[Read]], say: Say) -> list[Read]:
    """What a file gives; nothing where it is not there or holds something else, which is said."""
    if not path.exists():
        return []
    try:
        return rows(read_json(path))
    except (UWMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        say(f"{path}: left out of the pages ({error})")
        return []


def _of_the_paper() -> Iterator[Row]:
    for what, name in PAPER.items():
        ours, theirs = (ROWS[name.format(loss)].metrics["rsum"] for loss in ("polynomial", "triplet"))
        assert ours and theirs
        said = f"{ours - theirs:+.1f} ({ours:.1f} against {theirs:.1f})"
        yield what, said, "not run: the features could not be downloaded", "neither confirmed nor refuted"


def _two_losses(data: str, found: Mapping[str, Any]) -> list[Row]:
    compared = found["comparison"]
    interval = Interval(*(NAN if value is None else value for value in compared["over_seeds"].values()))
    return [(f"SCAN i2t on {data}", "–", str(interval), plain_markdown(compared["verdict"]))]


def _on_models(titles: Mapping[str, str], data: str, found: Mapping[str, Any]) -> list[Row]:
    """A row for each study of several models: with how many of them which loss is better."""
    rows = []
    for study, entry in found.items():
        if (n := len(entry["outcomes"])) > 1:
            ahead = Counter(entry["outcomes"].values())
            of = f"better with {ahead['polynomial']} of {counted(n, 'model')}, worse with {ahead['triplet']}"
            undecided = n - ahead["polynomial"] - ahead["triplet"]
            certain = f"not decided with {undecided}; intervals corrected for {counted(n, 'comparison')}"
            rows.append((f"{titles.get(study, study)}: {data}", "–", of, certain))
    return rows


def _sentences(studies: Sequence[str] | None, found: Mapping[str, Any]) -> list[str]:
    chosen = found if studies is None else filter(found.__contains__, studies)
    return [sentence for study in chosen for sentence in found[study]["findings"]]
