"""Where a text stands in the library: by its words and not by its file, so that lists outlive a move."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

LIBRARY = "uwml_lib"
ENDINGS = (".py", ".js", ".j2")


class Place(NamedTuple):
    """A stretch of a file of the library."""

    file: Path
    start: int
    end: int

    def replace(self, after: str) -> str:
        """Return the file's text with `after` in this place."""
        text = self.file.read_text(encoding="utf-8")
        return text[: self.start] + after + text[self.end :]


def library(root: Path) -> dict[Path, str]:
    """Read all that may hold a fault: code, and what the pages are made of."""
    paths = sorted(path for path in (root / LIBRARY).rglob("*") if path.suffix in ENDINGS)
    return {path: path.read_text(encoding="utf-8") for path in paths}


def find_text(sources: Mapping[Path, str], text: str) -> list[Place]:
    """Find a text in the library; where it has a blank, the library may have a line break."""
    pattern = re.compile(r"\s+".join(map(re.escape, text.split())))
    return [
        Place(path, match.start(), match.end())
        for path, source in sources.items()
        for match in pattern.finditer(source)
    ]


def find_line(sources: Mapping[Path, str], line: str, scope: str) -> list[Place]:
    """Find a line of Python, given without its indentation; of several, take those in the function of this name."""
    found = {
        Place(path, start, start + len(line)): of
        for path, source in sources.items()
        if path.suffix == ".py" and line in source
        for of, start, text in scoped_lines(source)
        if text == line
    }
    if len(found) > 1:
        return [place for place, of in found.items() if of == scope]
    return list(found)


def scoped_lines(source: str) -> Iterator[tuple[str, int, str]]:
    """Yield every line of a module: the class and function it is in, where it begins, and its text, stripped."""
    scopes = line_scopes(ast.parse(source))
    start = 0
    for number, line in enumerate(source.splitlines(keepends=True), 1):
        yield scopes.get(number, ""), start + len(line) - len(line.lstrip()), line.strip()
        start += len(line)


def line_scopes(tree: ast.AST, outer: str = "") -> dict[int, str]:
    """Say of every line in a class or function which it is, as `Trainer.step`; the innermost of several."""
    scopes: dict[int, str] = {}
    for node in ast.iter_child_nodes(tree):
        name = outer
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            name = f"{outer}.{node.name}".removeprefix(".")
            scopes |= dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), name)
        scopes |= line_scopes(node, name)
    return scopes
