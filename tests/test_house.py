"""The house stays as CONTRIBUTING draws it; `python -m tests.test_house` prints its measures."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from uwml_lib.support.paths import CHECKOUT

LIBRARY = CHECKOUT / "uwml_lib"
FLOORS = (
    ("support",), ("config",), ("losses",), ("weighting",), ("models",), ("datasets",), ("evaluation",), ("runs",),
    ("training", "released"), ("reports",), ("studies",), ("commands",), ("cli",),
)  # fmt: skip
"""From the bottom up; a room imports from its own floor's rooms only what is its own, and from the floors below."""
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MOST_ENTRIES, MOST_LINES_A_FILE, MOST_LINES_A_FUNCTION = 15, 350, 50
MOST_LINES = 19_141
"""Of code and templates; the chapters of the site are text. A ratchet: lower it with every change that takes lines
away; what is new in kind, as an adapter, may raise it."""
ADAPTERS = ("losses/pml.py",)
"""What fits a loss into another library may import that library, and nothing imports it."""
MODULES = sorted(LIBRARY.rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(LIBRARY).as_posix()


def _imported(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_name(path)}: imports by a relative name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _rooms_imported(path: Path) -> set[str]:
    own = {tuple(name.split("."))[1] for name in _imported(path) if name.startswith("uwml_lib.")}
    return own - {"__version__"}


def test_imports_go_down():
    wrong = []
    for path in MODULES:
        room = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
        for other in _rooms_imported(path) - {room}:
            if room == "__init__" or FLOOR_OF[other] >= FLOOR_OF[room]:
                wrong.append(f"{_name(path)} imports {other}")
    assert wrong == []


def test_few_rooms():
    entries = {path.relative_to(LIBRARY).parts[0] for path in MODULES} - {"__init__.py"}
    assert {entry.removesuffix(".py") for entry in entries} == set(FLOOR_OF)
    assert len(entries) <= MOST_ENTRIES


def _length(function: ast.FunctionDef) -> int:
    """Lines of a function but for its docstring."""
    docstring = function.body[0] if ast.get_docstring(function) else None
    return function.end_lineno - function.lineno + 1 - (docstring.end_lineno - docstring.lineno + 1 if docstring else 0)


def _long() -> list[str]:
    found = []
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) > MOST_LINES_A_FILE:
            found.append(f"{_name(path)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (lines := _length(node)) > MOST_LINES_A_FUNCTION:
                found.append(f"{_name(path)}: {node.name} has {lines} lines")
    return found


def test_no_file_and_no_function_is_long():
    assert _long() == []


def test_the_losses_can_be_lifted_out():
    allowed = {"losses": {"torch", "losses"}, "weighting": {"torch", "numpy", "pandas", "losses", "weighting"}}
    for room, names in allowed.items():
        for path in (LIBRARY / room).glob("*.py"):
            if _name(path) in ADAPTERS:
                continue
            roots = {name.removeprefix("uwml_lib.").split(".")[0] for name in _imported(path)}
            assert roots <= names | set(sys.stdlib_module_names), path


def test_a_weight_curve_loads_neither_runs_nor_scipy():
    program = (
        "import sys; from uwml_lib.losses import TripletLoss; from uwml_lib.weighting import anchor_curves; "
        "from uwml_lib.reports import figures; figures.weight_curves({'triplet': anchor_curves(TripletLoss())}); "
        "loaded = {name for name in sys.modules if name == 'scipy' or name.startswith('uwml_lib.runs')}; "
        "sys.exit(', '.join(sorted(loaded)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr


def _tracked_lines() -> int:
    listed = subprocess.run(["git", "ls-files", "-z", "uwml_lib"], cwd=CHECKOUT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout")
    code = [CHECKOUT / name for name in listed.stdout.split("\0") if name and not name.endswith(".md")]
    files = [file for file in code if file.exists()]
    return sum(file.read_bytes().count(b"\n") for file in files)


def test_the_library_is_thin():
    assert _tracked_lines() <= MOST_LINES


def main() -> None:
    functions = [
        (_length(node), f"{_name(path)}: {node.name}")
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    files = [(len(path.read_text(encoding="utf-8").splitlines()), _name(path)) for path in MODULES]
    entries = {path.relative_to(LIBRARY).parts[0] for path in MODULES} - {"__init__.py"}
    print(f"entries at the top: {len(entries)} (at most {MOST_ENTRIES})")
    print(f"lines in all, with templates: {_tracked_lines():,} (at most {MOST_LINES:,})")
    print(f"longest file: {'{1}, {0} lines'.format(*max(files))} (at most {MOST_LINES_A_FILE})")
    print(f"longest function: {'{1}, {0} lines'.format(*max(functions))} (at most {MOST_LINES_A_FUNCTION})")


if __name__ == "__main__":
    main()
