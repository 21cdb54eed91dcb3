"""The glossary's tables as Sphinx's glossary, and a link to it where a page first uses one of its terms."""

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.ext.autosummary import autosummary_table

COMMON = {
    "anchor", "batch", "caption", "clip", "clips", "collapse", "correction", "direction", "epoch", "fold", "head",
    "loss", "negative", "pair", "positive", "pull", "push", "rank", "reduction", "region", "retrieval", "scale",
    "score", "seed", "similarity", "split", "spread", "step", "vocabulary",
}  # fmt: skip
"""Terms that are everyday words too, or that nearly every page uses."""
OTHER_SENSES = ("classification polyloss", "cross entropy", "inverse temperature")
"""What holds a term and means something else."""
WITHOUT_LINKS = ("pages/glossary", "pages/changelog", "pages/contributing")
SKIPPED = (
    nodes.reference, nodes.literal, nodes.title, nodes.thead, nodes.math, nodes.raw, addnodes.desc_signature,
    autosummary_table,
)  # fmt: skip


def glossary_directives(text: str) -> str:
    """Turn each table of terms, meanings and sections of a Markdown document into a glossary of Sphinx."""
    table = re.compile(r"^\| term \|.*\n\|[-|]+\|\n((?:\|.*\n?)+)", re.MULTILINE)
    return table.sub(lambda match: "```{glossary}\n" + "\n".join(_entries(match[1])) + "```\n", text)


def _entries(rows: str) -> Iterator[str]:
    for row in rows.splitlines():
        terms, meaning, *section = (cell.strip() for cell in row.strip("|").split(" | "))
        names = re.split(r", (?![^()]*\))", terms)  # not within brackets
        yield "\n".join([*names, f"  {meaning}" + "".join(f" *Section {number}.*" for number in section) + "\n"])


def link_terms(app: Any, doctree: nodes.document, page: str) -> None:
    """Link the first use of every term on a page to the glossary, in place; plurals too."""
    found = app.env.domains.standard_domain.get_objects()
    places = {name.lower(): (of, place) for name, _, kind, of, place, _ in found if kind == "term"}
    names = [name for name in places if re.fullmatch(r"[a-z][a-z@∞ -]{3,}", name) and name not in COMMON]
    if not names or page in WITHOUT_LINKS:
        return
    either = "|".join(sorted([*names, *OTHER_SENSES], key=len, reverse=True))
    pattern = re.compile(rf"\b({either})(?:s|es)?\b", re.IGNORECASE)
    seen: set[str] = set()
    for text in [*doctree.findall(nodes.Text)]:
        if _in_prose(text):
            parts = [*_linked(app, page, str(text), pattern, places, seen)]
            if len(parts) > 1:
                text.parent.replace(text, parts)


def _in_prose(node: nodes.Node) -> bool:
    above = []
    while node := node.parent:
        above.append(node)
    return any(isinstance(x, nodes.paragraph) for x in above) and not any(isinstance(x, SKIPPED) for x in above)


def _linked(
    app: Any, page: str, text: str, pattern: re.Pattern[str], places: dict[str, tuple[str, str]], seen: set[str]
) -> Iterator[nodes.Node]:
    """The text in parts: plain ones, and links of the terms that were not seen before."""
    end = 0
    for match in pattern.finditer(text):
        if (name := match[1].lower()) in places and name not in seen:
            seen.add(name)
            of, place = places[name]
            address = f"{app.builder.get_relative_uri(page, of)}#{place}"
            yield nodes.Text(text[end : match.start()])
            yield nodes.reference("", match[0], internal=True, refuri=address, classes=["kit-term"])
            end = match.end()
    yield nodes.Text(text[end:])
