"""What CONTRIBUTING.md tells people to do works, its examples first; the hooks run what `make lint` runs, and pass."""

import re
import shlex
import subprocess
import sys
from unittest.mock import patch

import pytest
import yaml

from uwml_lib.losses import LOSSES
from uwml_lib.models import MODELS
from uwml_lib.support.files import read_sealed_json
from uwml_lib.support.paths import CHECKOUT, NOTEBOOKS, REFERENCE

CONTRIBUTING = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
GLOSSARY = (NOTEBOOKS / "GLOSSARY.md").read_text(encoding="utf-8")
SYLLABUS = (NOTEBOOKS / "README.md").read_text(encoding="utf-8")
MAKEFILE = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^### (.*?)\n.*?```python\n(.*?)```", CONTRIBUTING, flags=re.DOTALL | re.MULTILINE)
HOOKS = {
    hook["id"]: hook
    for repo in yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    for hook in repo["hooks"]
}
PYTHON = ".venv/bin/python"


def test_there_are_three_examples_of_some_ten_lines():
    assert [title for title, _ in EXAMPLES] == ["A loss", "A model", "A data set"]
    for title, example in EXAMPLES:
        definition = example.partition("\n# Try it")[0]
        lines = [line for line in definition.splitlines() if line and not line.startswith(("from", "import"))]
        assert len(lines) <= 14, title


@pytest.mark.parametrize("example", [example for _, example in EXAMPLES], ids=[title for title, _ in EXAMPLES])
def test_the_example_trains(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with patch.dict(LOSSES), patch.dict(MODELS):
        exec(example, {"__name__": "example"})
    assert read_sealed_json(tmp_path / "run" / "results.json")["best_epoch"] == 1


def test_links_lead_somewhere():
    for text in (CONTRIBUTING, (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (CHECKOUT / target).exists(), target
    for text in (GLOSSARY, SYLLABUS):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (NOTEBOOKS / target).exists(), target


def test_paths_and_targets_named_are_there():
    for path in re.findall(r"`((?:uwml_lib|tests|notebooks|benchmarks|examples|data|reports)/[\w./]*)`", CONTRIBUTING):
        assert (CHECKOUT / path).exists(), path
    targets = re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE)
    for target in re.findall(r"`make ([a-z-]+)", CONTRIBUTING):
        assert target in targets, target


@pytest.fixture(scope="module")
def sections():
    """The numbered sections of all notebooks: 4.2 is one of notebook 5."""
    titles = "\n".join(path.read_text(encoding="utf-8") for path in sorted(NOTEBOOKS.glob("*.ipynb")))
    return set(re.findall(r"\"## (\d+\.\d+) ", titles))


def test_sections_of_the_glossary_are_there(sections):
    named = re.findall(r"^\| [^|]+ \| [^|]+ \| (.*) \|$", GLOSSARY, flags=re.MULTILINE)
    assert len(named) > 40
    assert set(named) - {"section"} <= sections


def test_what_the_syllabus_shows_is_there(sections):
    shown = re.findall(r"§(\d+\.\d+)", SYLLABUS)
    assert len(shown) > 25
    assert set(shown) <= sections
    for figure in re.findall(r"`(\w+\.png)`", SYLLABUS):
        assert (REFERENCE / "figures" / figure).exists(), figure
    numbers = re.findall(r"[Ee]xercise (\d) of notebook (\d+)", SYLLABUS)
    for number, notebook in numbers + [pair[::-1] for pair in re.findall(r"^\| notebook (\d+), (\d)", SYLLABUS, re.M)]:
        (path,) = NOTEBOOKS.glob(f"{int(notebook):02}_*.ipynb")
        assert f'"{number}. ' in path.read_text(encoding="utf-8").partition("## Exercises")[2]


def test_the_lessons_leave_no_minute_out():
    for minutes, text in ((90, SYLLABUS.partition("## In 45")[0]), (45, SYLLABUS.partition("## In 45")[2])):
        spans = [(int(start), int(end)) for start, end in re.findall(r"^\| (\d+)–(\d+) ", text, flags=re.MULTILINE)]
        assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
        assert spans[-1][1] == minutes


def test_the_newest_version_of_the_changelog_is_the_packages():
    headings = re.findall(r"^## \[(.*?)\]", (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    version = re.search(r'^version = "(.*)"$', (CHECKOUT / "pyproject.toml").read_text(), flags=re.MULTILINE).group(1)
    assert headings[:2] == ["Unreleased", version]


# ---------------------------------------------------------------------------------------------------- the hooks


def test_the_hooks_are_what_make_lint_runs():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, flags=re.MULTILINE).group(1)
    strip = re.search(r"^STRIP := ((?:.*\\\n)*.*)", MAKEFILE, flags=re.MULTILINE).group(1).replace("\\\n", " ")
    lines = recipe.replace("$(NOTEBOOKS) $(STRIP)", strip).replace(" {} +", "").replace("$(PY)", PYTHON).splitlines()
    assert [shlex.split(hook["entry"]) for hook in HOOKS.values()] == [shlex.split(line) for line in lines]
    assert {hook["language"] for hook in HOOKS.values()} == {"system"}  # nothing is fetched


@pytest.mark.parametrize(
    "name", ["ruff-check", "ruff-format", "nbstripout", pytest.param("mypy", marks=pytest.mark.slow)]
)
def test_the_hook_passes(name):
    words = shlex.split(HOOKS[name]["entry"])
    assert words[0] == PYTHON
    files = []
    if HOOKS[name].get("pass_filenames", True):
        paths = [path.relative_to(CHECKOUT).as_posix() for path in NOTEBOOKS.glob("*.ipynb")]
        files = [path for path in paths if re.search(HOOKS[name]["files"], path)]
        assert files
    done = subprocess.run([sys.executable, *words[1:], *files], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_hook_is_tried():
    assert set(HOOKS) == {"ruff-check", "ruff-format", "nbstripout", "mypy"}
