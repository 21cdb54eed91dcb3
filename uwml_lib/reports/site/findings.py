"""What was published, as one table and as sentences: on the start page, among the results, and in the README."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import isnan
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from uwml_lib.evaluation.statistics import NAN, NO_DIFFERENCE, Interval
from uwml_lib.released.published import ROWS
from uwml_lib.reports.report import FINDINGS, WINNERS, in_short, plain_markdown, table_markdown
from uwml_lib.reports.site.sources import page_name
from uwml_lib.reports.tuned_losses import FITTED, PUBLISHED_GAINS
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError, reading
from uwml_lib.support.files import read_json
from uwml_lib.support.progress import Say

DATA = {
    "scenes": "scenes of digits", "clips": "videos of digits", "f8k_regions": "photographs of Flickr8k",
}  # fmt: skip
"""Folder of published results -> what the data are."""
IN_SHORT = ("reproduce", "compare", "models")
"""Studies whose sentences stand on the start page, below the answers."""
ANSWERS = {
    "polynomial": "Yes", "triplet": "No, the triplet loss is better", "": "That is not decided",
    "collapsed": "There is nothing to compare, for trainings collapsed",
}  # fmt: skip
"""Outcome of a comparison -> the answer that it gives."""
PAPER = {"SCAN i2t on Flickr30K": "f30k_{}_i2t_avg", "SCAN i2t on MSCOCO, 1K": "coco1k_{}_i2t_avg"}
"""What the paper compares -> names of the published numbers of both losses."""
COLUMNS = (
    "polynomial − triplet, in rsum", "how certain", "here, over seeds", "here, over test items", "seeds", "published",
)  # fmt: skip
Row = tuple[str, str, str, str, str, str]
Read = TypeVar("Read")


def findings_table(titles: Mapping[str, str], say: Say, linked: bool = False) -> str:
    """One table in Markdown: what the paper says, what was found here, how certain that is.

    titles: name of a study -> its title. linked: each row leads to its page on the site. What cannot be read is left
    out, and said.
    """
    rows = [*_of_the_paper()]
    for folder, dataset in _folders():
        data = DATA.get(dataset, plain_markdown(dataset))
        found = _read(folder / "summary.json", partial(_two_losses, data), say)
        for study in ("compare", "evidence"):
            found += _read(folder / f"{study}.json", partial(_tuned, study, data), say)
        found += _read(folder / FINDINGS, partial(_on_models, titles, data), say)
        rows += [(f"{page_name(dataset)}-{study}", row) for study, row in found]
    cells = [(f"[{row[0]}](/pages/results/{page}.md)" if linked else row[0], *row[1:]) for page, row in rows]
    return table_markdown(pd.DataFrame(cells, columns=COLUMNS), index=False)


def conclusion(say: Say) -> str:
    """Say in a sentence which loss was ahead how often, over all that was published; "" where nothing was compared."""
    return in_short(dict(pair for folder, _ in _folders() for pair in _read(folder / FINDINGS, _outcomes, say)))


def answers(say: Say) -> list[str]:
    """Of each data set that `make evidence` was published of: is the polynomial loss better, how surely, and what is
    seen of the published gain.
    """
    return [said for folder, dataset in _folders() for said in _read(folder / FINDINGS, partial(_answer, dataset), say)]


def _answer(dataset: str, found: Mapping[str, Any]) -> list[str]:
    if "evidence" not in found:
        return []
    (_, winner), *_ = _outcomes({"evidence": found["evidence"]})
    first, *others = _sentences(["evidence"], found)
    name = plain_markdown(dataset)
    data = DATA.get(dataset, name)
    gains = (sentence for sentence in others if sentence.startswith(PUBLISHED_GAINS))
    answer = "No difference is shown" if f"; {NO_DIFFERENCE}:" in first else ANSWERS[winner]
    asked = f"**Is the polynomial loss better than the triplet loss on {data}? {answer}.**"
    said = re.sub(f"; (not decided|{NO_DIFFERENCE}):", ";", first.replace(name, data, 1))
    return [" ".join([asked, said, *gains])]


def findings_sentences(say: Say, studies: Sequence[str] | None = None) -> list[str]:
    """The sentences of all published reports, or of some studies, in Markdown."""
    return [said for folder, _ in _folders() for said in _read(folder / FINDINGS, partial(_sentences, studies), say)]


def sentences_of(folder: Path, study: str, say: Say) -> list[str]:
    """The sentences of one published report, in Markdown."""
    return _read(folder / FINDINGS, partial(_sentences, [study]), say)


def _folders() -> list[tuple[Path, str]]:
    """Folders of published results, that of the scenes first, with what they are called."""
    others = sorted({file.parent for name in ("summary.json", FINDINGS) for file in paths.REFERENCE.glob(f"*/{name}")})
    return [(paths.REFERENCE, "scenes"), *((folder, folder.name) for folder in others)]


def _read(path: Path, rows: Callable[[Any], list[Read]], say: Say) -> list[Read]:
    """What a file gives; nothing where it is not there or holds something else, which is said."""
    if not path.exists():
        return []
    try:
        with reading(path, "what a study found"):
            return rows(read_json(path))
    except UWMLError as error:
        say(f"left out of the pages: {error}")
        return []


def _of_the_paper() -> Iterator[tuple[str, Row]]:
    for what, name in PAPER.items():
        ours, theirs = (ROWS[name.format(loss)].metrics["rsum"] for loss in ("polynomial", "triplet"))
        assert ours and theirs
        assumed = "; not said of which variant" * ("assumed" in ROWS[name.format("polynomial")].method)
        said = f"{ours - theirs:+.1f} ({ours:.1f} against {theirs:.1f}{assumed})"
        yield "published", (what, "neither confirmed nor refuted", "not run: no features at hand", "–", "–", said)


def of_the_baseline() -> str:
    """Say on how many trainings the published numbers rest, and what others found of the baseline."""
    method, baseline, again = (ROWS[f"f30k_{name}"] for name in (
        "polynomial_i2t_avg", "triplet_i2t_avg", "triplet_i2t_avg_retrained"))  # fmt: skip
    assert (method.n, baseline.n) == (1, 1)
    return (
        f"The published numbers rest on one training of each loss. On Flickr30K {again.n} trainings of the baseline by "
        f"others gave {again.metrics['rsum']} ± {again.std['rsum']}, below its published {baseline.metrics['rsum']}."
    )


def _two_losses(data: str, found: Mapping[str, Any]) -> list[tuple[str, Row]]:
    compared, (n, *_) = found["comparison"], [len(of["runs"]) for of in found["losses"].values()]
    certain = plain_markdown(compared["verdict"]).partition(":")[0]
    return [("reproduce", (f"SCAN i2t on {data}", certain, *_intervals(compared), str(n), "–"))]


def _tuned(study: str, data: str, found: Mapping[str, Any]) -> list[tuple[str, Row]]:
    """The polynomial loss and its fitted coefficients, on the first model, each loss tuned."""
    said, model, rows = {"polynomial": "", FITTED: ", coefficients fitted"}, found["groups"][0]["model"], []
    for group in found["groups"]:
        if group["model"] == model and group["loss"] in said:
            what, against = f"SCAN i2t on {data}, each loss tuned{said[group['loss']]}", group["against_triplet"]
            winner = {"a": "polynomial is better", "b": "triplet is better", "": "not decided"}[against["winner"]]
            corrected = f"; corrected for {n} comparisons" if (n := against["corrected_for"]) > 1 else ""
            rows.append((study, (what, winner + corrected, *_intervals(against), str(len(group["runs"])), "–")))
    return rows


def _intervals(compared: Mapping[str, Any]) -> tuple[str, str]:
    """The difference with its intervals over seeds and over test items."""
    over_seeds, over_items = (compared.get(name) for name in ("over_seeds", "over_images"))
    seeds, items = (
        Interval(*(NAN if of[end] is None else float(of[end]) for end in Interval._fields)) if of else Interval(NAN)
        for of in (over_seeds, over_items)
    )
    return str(seeds), "–" if isnan(items.low) else items.ends


def _on_models(titles: Mapping[str, str], data: str, found: Mapping[str, Any]) -> list[tuple[str, Row]]:
    """A row for each study of several models: with how many of them which loss is better."""
    rows = []
    for study, entry in found.items():
        outcomes = _outcomes({study: entry})
        if (n := len(outcomes)) > 1 and study not in ("compare", "evidence"):
            ahead = Counter(winner for _, winner in outcomes)
            decided = [what for what, winner in outcomes if winner in ("polynomial", "triplet")]
            dense = "; all of these in the dense form" * bool(decided and all("dense form" in what for what in decided))
            of = f"better with {ahead['polynomial']} of {n} models, worse with {ahead['triplet']}{dense}"
            certain = f"{n - ahead['polynomial'] - ahead['triplet']} not decided; corrected for {n} comparisons"
            rows.append((study, (f"{titles.get(study, study)}: {data}", certain, of, "–", "–", "–")))
    return rows


def _sentences(studies: Sequence[str] | None, found: Mapping[str, Any]) -> list[str]:
    said = [found[study]["findings"] for study in (found if studies is None else filter(found.__contains__, studies))]
    if any(isinstance(sentences, str) for sentences in said):
        raise ValueError("findings: found text, expected a list of sentences")
    return [plain_markdown(sentence) for sentences in said for sentence in sentences]


def _outcomes(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = [pair for entry in found.values() for pair in entry["outcomes"].items()]
    if others := {winner for _, winner in pairs if winner not in WINNERS}:
        raise ValueError(f"outcomes: found {others.pop()!r}, expected one of {', '.join(map(repr, WINNERS))}")
    return pairs
