"""Mutants: small changes to lines of the library, drawn by lot, and whether the tests killed each.

`python -m tests.faults.mutants` draws them anew into `mutants.json`. Do so only with the suite that is to be the
measure of later ones: a mutant is kept by its line, so that the same ones can be tried after the code was moved.
"""

import ast
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from tests.faults.places import library, line_scopes, scoped_lines

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("mutants.json")
SEED = 20200314
PER_AREA = 30
DRAWN_FROM = {
    "losses": ("losses/*.py",),
    "attention": ("models/cross_attention.py", "models/fused_attention.py"),
    "metrics": ("evaluation.py", "evaluation/metrics.py", "evaluation/scores.py"),
    "statistics": ("statistics.py", "evaluation/statistics.py"),
    "resume": ("checkpoints.py", "training.py", "runs/checkpoints.py", "training/*.py"),
}
"""Area -> where its lines are drawn from; patterns below uwml_lib, of which some may be of other layouts."""

COMPARISONS = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}  # fmt: skip
OPERATORS = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "+"), ast.Pow: ("**", "*"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
}  # fmt: skip
SWAPS = {"min": "max", "amax": "amin", "any": "all", ".sum": ".mean", "zeros_like": "ones_like", "argmax": "argmin"}
SWAPS |= {after: before for before, after in SWAPS.items()}
MESSAGES = ("say", "UWMLError", "warn")


@dataclass(frozen=True)
class Mutant:
    """A changed line. scope: class and function it is in. killed: by the tests as they were; None: not tried yet. by:
    the test that killed it, which is asked first the next time.
    """

    name: str
    area: str
    scope: str
    before: str
    after: str
    killed: bool | None = None
    by: str = ""


class Edit(NamedTuple):
    """A change within the bytes start to end of a line, counted from 1: of all of them, or of the sign among them."""

    line: int
    start: int
    end: int
    text: str
    sign: bytes = b""

    def apply(self, line: str) -> str:
        """Return the line with the change."""
        old = line.encode()
        here, new = old[self.start : self.end], self.text.encode()
        here = here.replace(self.sign, new, 1) if self.sign else new
        return (old[: self.start] + here + old[self.end :]).decode()


def load() -> list[Mutant]:
    """Read the drawn mutants."""
    return [Mutant(**record) for record in json.loads(LIST.read_text(encoding="utf-8"))]


def save(mutants: list[Mutant]) -> None:
    """Write the mutants, one a line."""
    lines = ",\n".join(json.dumps(asdict(mutant), ensure_ascii=False) for mutant in mutants)
    LIST.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def draw(root: Path, seed: int = SEED, per_area: int = PER_AREA) -> list[Mutant]:
    """Draw as many mutants from every area, always the same of the same code."""
    modules = [source for path, source in library(root).items() if path.suffix == ".py"]
    often = Counter((scope, line) for source in modules for scope, _, line in scoped_lines(source))
    drawn = []
    for area, patterns in DRAWN_FROM.items():
        files = sorted({path for pattern in patterns for path in (root / "uwml_lib").glob(pattern)})
        candidates = [replace(mutant, area=area) for path in files for mutant in mutants_of(path)]
        candidates = [mutant for mutant in candidates if often[mutant.scope, mutant.before] == 1]
        chosen = random.Random(f"{seed} {area}").sample(candidates, per_area)
        drawn += [replace(mutant, name=f"{area}-{number:02}") for number, mutant in enumerate(chosen, 1)]
    return drawn


def mutants_of(path: Path) -> list[Mutant]:
    """Return every mutant of a module, without name and area; those that change nothing are left out."""
    source = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    edits = list(dict.fromkeys(_edits(tree)))
    scopes, original = line_scopes(tree), ast.dump(tree)
    mutants = []
    for edit in edits:
        old = lines[edit.line - 1]
        new = edit.apply(old)
        changed = [*lines[: edit.line - 1], new, *lines[edit.line :]]
        scope, before = scopes.get(edit.line, ""), old.strip()
        try:
            same = ast.dump(ast.parse("\n".join(changed))) == original
        except SyntaxError:
            continue
        if not same:
            mutants.append(Mutant("", "", scope, before, new.strip()))
    return mutants


def _edits(node: ast.AST) -> Iterator[Edit]:
    """Yield the changes of a syntax tree, from top to bottom; messages, types and docstrings are let alone."""
    for kind, change in CHANGES.items():
        if isinstance(node, kind):
            yield from (edit for edit in change(node) if edit is not None)
    if isinstance(node, ast.FunctionDef):
        children = [*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body]
    elif isinstance(node, ast.ClassDef):
        children = node.body
    elif isinstance(node, ast.AnnAssign):
        children = [node.value] if node.value else []
    elif _is_left_alone(node):
        children = []
    else:
        children = list(ast.iter_child_nodes(node))
    for child in children:
        yield from _edits(child)


def _is_left_alone(node: ast.AST) -> bool:
    """Messages and imports, and dimensions, which `_call` changes."""
    if isinstance(node, ast.keyword):
        return node.arg in ("dim", "axis")
    return isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom) or _is_message(node)


def _is_message(node: ast.AST) -> bool:
    name = getattr(node, "func", None)
    return getattr(name, "id", "") in MESSAGES or getattr(name, "attr", "") in MESSAGES


def _between(left: ast.expr, right: ast.expr, signs: tuple[str, str]) -> Edit | None:
    """Change the sign between two expressions, if both are on one line."""
    if left.end_lineno != right.lineno or left.end_col_offset is None:
        return None
    return Edit(right.lineno, left.end_col_offset, right.col_offset, signs[1], signs[0].encode())


def _comparison(node: ast.Compare) -> Iterator[Edit | None]:
    for left, sign, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
        yield _between(left, right, COMPARISONS[type(sign)])


def _operation(node: ast.BinOp) -> Iterator[Edit | None]:
    if type(node.op) in OPERATORS and not any(map(_is_text, (node.left, node.right))):  # a path or a list
        yield _between(node.left, node.right, OPERATORS[type(node.op)])


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.List | ast.JoinedStr) or isinstance(getattr(node, "value", None), str)


def _boolean(node: ast.BoolOp) -> Iterator[Edit | None]:
    signs = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
    for left, right in zip(node.values, node.values[1:], strict=False):
        yield _between(left, right, signs)


def _sign(node: ast.UnaryOp) -> Iterator[Edit]:
    """Take a minus, `not` or `~` away."""
    if node.lineno == node.operand.lineno:
        yield Edit(node.lineno, node.col_offset, node.operand.col_offset, "")


def _constant(node: ast.Constant) -> Iterator[Edit]:
    value = node.value
    if type(value) is bool:
        text = str(not value)
    elif type(value) is int:
        text = str(value + 1)
    elif type(value) is float:
        text = repr(2 * value or 1.0)
    else:
        return
    yield Edit(node.lineno, node.col_offset, node.end_col_offset or 0, text)


def _call(node: ast.Call) -> Iterator[Edit]:
    """Swap a function for its opposite, `min=` for `max=`, and one dimension for the other."""
    name, end = node.func, node.func.end_col_offset or 0
    if isinstance(name, ast.Name | ast.Attribute):
        word = name.id if isinstance(name, ast.Name) else name.attr
        for known in {word, f".{word}" if isinstance(name, ast.Attribute) else word} & SWAPS.keys():
            yield Edit(name.end_lineno or 0, end - len(known), end, SWAPS[known])
    for keyword in node.keywords:
        at = keyword.value
        if keyword.arg in ("min", "max"):
            yield Edit(keyword.lineno, keyword.col_offset, keyword.col_offset + 3, SWAPS[keyword.arg])
        if keyword.arg in ("dim", "axis") and at.lineno == at.end_lineno:
            yield Edit(at.lineno, at.col_offset, at.end_col_offset or 0, "1" if ast.unparse(at) == "0" else "0")


def _condition(node: ast.If | ast.IfExp) -> Iterator[Edit]:
    """Do the one thing where the other was to be done."""
    test = node.test
    if test.lineno == test.end_lineno:
        yield Edit(test.lineno, test.col_offset, test.end_col_offset or 0, f"not ({ast.unparse(test)})")


def _return(node: ast.Return) -> Iterator[Edit]:
    """Return a pair the other way round."""
    if isinstance(pair := node.value, ast.Tuple) and len(pair.elts) == 2 and pair.lineno == pair.end_lineno:
        first, second = map(ast.unparse, pair.elts)
        yield Edit(pair.lineno, pair.col_offset, pair.end_col_offset or 0, f"{second}, {first}")


def _added(node: ast.AugAssign) -> Iterator[Edit | None]:
    if type(node.op) in OPERATORS and not _is_text(node.value):
        signs = OPERATORS[type(node.op)]
        yield _between(node.target, node.value, (f"{signs[0]}=", f"{signs[1]}="))


def _statement(node: ast.Expr) -> Iterator[Edit]:
    """Leave a call out."""
    if isinstance(node.value, ast.Call) and node.lineno == node.end_lineno and not _is_message(node.value):
        yield Edit(node.lineno, node.col_offset, node.end_col_offset or 0, "pass")


CHANGES: dict[type[ast.AST], Callable[..., Iterator[Edit | None]]] = {
    ast.Compare: _comparison, ast.BinOp: _operation, ast.BoolOp: _boolean, ast.UnaryOp: _sign, ast.Constant: _constant,
    ast.Call: _call, ast.If: _condition, ast.IfExp: _condition, ast.Return: _return, ast.AugAssign: _added,
    ast.Expr: _statement,
}  # fmt: skip

if __name__ == "__main__":
    save(draw(ROOT))
