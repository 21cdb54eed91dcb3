"""The set-up: one list of packages in three files, a Makefile that behaves, a core that needs torch and numpy alone."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from uwml_lib import __version__

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"pytorch": "torch"}
CORE_MODULES = ("losses", "weighting", "models", "evaluation")


def ranges(lines: Iterable[str]) -> dict[str, SpecifierSet]:
    requirements = [Requirement(line) for line in lines]
    assert len({r.name for r in requirements}) == len(requirements), "a package is named twice"
    return {canonicalize_name(CONDA_NAMES.get(r.name, r.name)): r.specifier for r in requirements}


def project_ranges() -> dict[str, SpecifierSet]:
    lines = [*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), [])]
    return ranges(line for line in lines if Requirement(line).name != PROJECT["name"])


# ------------------------------------------------------------------------------------------------ the lists of packages


def test_conda_installs_what_pyproject_asks_for():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda_lines, pip_section = environment["dependencies"]
    *pip_lines, kit = pip_section["pip"]
    assert kit == "-e ."
    packages = ranges(conda_lines + pip_lines)
    assert packages.pop("python") == SpecifierSet(PROJECT["requires-python"])
    assert packages.pop("pip") == SpecifierSet()
    assert packages == project_ranges()


def test_constraints_pin_every_package_of_pyproject_within_its_range():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = ranges(line for line in lines if not line.startswith("#"))
    versions = {}
    for name, specifier in pins.items():
        (pin,) = specifier
        assert pin.operator == "==", f"{name}: a pin is one exact version"
        versions[name] = pin.version
    for name, allowed in project_ranges().items():
        assert name in versions, f"{name} is not pinned in constraints.txt"
        assert versions[name] in allowed, f"{name}=={versions[name]} is outside {allowed}"


def test_one_version_everywhere_and_its_date_in_the_changelog():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    (version,), (date,) = (
        re.findall(rf"^{name}: (\S+)$", citation, re.MULTILINE) for name in ("version", "date-released")
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert version == project["version"] == __version__
    assert f"\n## [{version}] - {date}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_oldest_python_is_the_same_everywhere():
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert f"sys.version_info < ({lowest.replace('.', ', ')})" in MAKEFILE
    assert f"The kit needs Python {lowest} or newer" in MAKEFILE


# --------------------------------------------------------------------------------------------------------- the Makefile

# Stands in for Python: logs how it is called, and "makes" an environment by copying itself.
FAKE_PYTHON = """#!/bin/sh
echo "$@" >> calls.log
[ -z "$REFUSE" ] || exit 1
if [ "$2" = venv ]; then rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python; fi
"""
Make = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """The files make reads, in a folder with spaces in its name, and the stand-in for Python."""
    folder = tmp_path / "a kit with spaces"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    fake = folder / "fake python"
    fake.write_text(FAKE_PYTHON, encoding="utf-8")
    fake.chmod(0o755)
    return folder


@pytest.fixture
def make() -> Make:
    """Run make as from a fresh shell: nothing is handed down by the make that may be running these tests."""
    if not (program := shutil.which("make")):
        pytest.skip("make is not installed here")
    variables = re.search(r"^VARIABLES := (.*)$", MAKEFILE, re.MULTILINE)[1].split()
    inherited = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", *variables}
    environment = {name: value for name, value in os.environ.items() if name not in inherited}

    def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        command = [program, "--no-print-directory", "-C", str(folder), *arguments]
        return subprocess.run(
            command, cwd=folder.parent, env=environment | variables, capture_output=True, text=True, timeout=300
        )

    return run


def calls(kit: Path) -> list[str]:
    """How the stand-in was called since the last time."""
    log = kit / "calls.log"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def test_make_alone_describes_every_target_and_variable(make, kit):
    targets = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split()
    targets.remove("gone")  # marks a .venv whose interpreter is gone
    assert set(targets) == set(re.findall(r"^([a-z-]+):(?! override)", MAKEFILE, re.MULTILINE))
    variables = re.search(r"^VARIABLES := (.*)$", MAKEFILE, re.MULTILINE)[1].split()
    output = make(kit).stdout
    assert re.findall(r"^  make ([a-z-]+) +\S.*", output, re.MULTILINE) == sorted(targets, key=output.find)
    assert re.findall(r"^  ([A-Z_]+) +\S.*", output, re.MULTILINE) == variables
    assert {"setup", "data", "reproduce", "smoke", "lab", "test", "test-all", "lint", "reference", "clean"} <= set(
        targets
    )


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["reproduce"], "reproduce"),
        (["reproduce", "DATASET=x", "SEEDS=0 1"], "reproduce --dataset 'x' --seeds '0 1'"),
        (["reproduce", "DATASET=", "EPOCHS=3", "PROFILE=full"], "reproduce --epochs '3' --profile 'full'"),
        (["reproduce", "DATA_ROOT=/a b/it's"], r"reproduce --data-root '/a b/it'\''s'"),
        (["reproduce", 'DATASET=a #1 $b"é'], "reproduce --dataset 'a #1 $b\"é'"),
        (
            ["reproduce", "SETTINGS=--batch-size 16  --normalisation $x"],
            "reproduce '--batch-size' '16' '--normalisation' '$x'",
        ),
        (["smoke", "SEEDS=0,1"], "reproduce --seeds '0,1' --profile 'smoke'"),
        (["data", "DATASET=x", "DATA_ROOT=y"], "data --dataset 'x' --data-root 'y'"),
        (["fidelity", "SEEDS=0 1"], "fidelity --seeds '0 1'"),
        (["sweep", "SPACE=a b.json", "SAMPLES=9"], "sweep --space 'a b.json' --samples '9'"),
        (["reference", "DATASET=x"], "report --publish --dataset 'x'"),
    ],
)
def test_variables_reach_the_command_line(make, kit, arguments, command):
    assert make(kit, "-n", *arguments).stdout.splitlines()[-1] == f".venv/bin/python -m uwml_lib.cli {command}"


def test_the_script_for_a_graphics_card_gets_its_folders_and_no_environment(make, kit):
    (kit / "benchmarks").mkdir()
    (kit / "benchmarks/gpu.sh").write_text('printf "%s\\n" "$DATA" "$PYTHON" "$#" "$@"\n', encoding="utf-8")
    assert make(kit, "-s", "gpu", "OUT=a b", "DATA=/a 'b'", "PYTHON=p").stdout.splitlines() == [
        "/a 'b'",
        "p",
        "1",
        "a b",
    ]
    assert make(kit, "-s", "gpu").stdout.splitlines() == ["", "", "0"]
    assert not (kit / ".venv").exists()


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("DATASETS", "DATASET"), ("SEED", "SEEDS"), ("dataroot", "DATA_ROOT"), ("TORCH_URL", "TORCH_INDEX_URL")],
)
def test_a_misspelt_variable_is_refused_with_the_nearest_right_one(make, kit, wrong, right):
    done = make(kit, "reproduce", f"{wrong}=a b=c", f"PYTHON={sys.executable}")
    assert done.returncode != 0
    assert f"unknown variable {wrong}; did you mean {right}?" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize(("target", "variable"), [("data", "SEEDS"), ("test", "EPOCHS"), ("smoke", "PROFILE")])
def test_a_variable_that_a_target_would_ignore_is_refused(make, kit, target, variable):
    done = make(kit, target, f"{variable}=3", f"PYTHON={sys.executable}")
    assert done.returncode != 0
    assert f"make {target} takes no {variable}" in done.stderr
    assert not done.stdout


def test_every_variable_is_taken_by_a_target():
    variables = set(re.search(r"^VARIABLES := (.*)$", MAKEFILE, flags=re.MULTILINE)[1].split())
    taken = {
        name for line in re.findall(r"^TAKES_[a-z]+ := (.*)$", MAKEFILE, flags=re.MULTILINE) for name in line.split()
    }
    assert taken | {"PYTHON", "TORCH_INDEX_URL"} == variables


def test_setup_runs_once_and_again_only_when_something_changed(make, kit):
    created, asked = "-m venv --clear .venv", "-m pip install -c constraints.txt -e .[dev]"
    assert make(kit, "setup", "PYTHON=./fake python").returncode == 0
    first = calls(kit)
    assert created in first and asked in first and any("download_punkt" in line for line in first)

    (kit / "pyproject.toml").touch()
    assert "Nothing to be done" in make(kit, "setup").stdout, "the choice of PYTHON was not remembered"
    assert calls(kit) == []

    with open(kit / "constraints.txt", "a", encoding="utf-8") as file:
        file.write("# edited\n")
    assert make(kit, "-j4", "setup").returncode == 0
    again = calls(kit)
    assert asked in again and created not in again

    moved = kit.rename(kit.with_name("moved"))
    assert make(moved, "setup").returncode == 0
    assert created in calls(moved), "the editable install of a moved folder is broken"

    (moved / ".venv/bin/python").unlink()
    assert make(moved, "setup").returncode == 0
    assert created in calls(moved), "the interpreter was gone"


def test_torch_comes_from_the_place_named_and_nothing_else_does(make, kit):
    place = "https://download.pytorch.org/whl/cpu"
    assert make(kit, "setup", "PYTHON=./fake python", f"TORCH_INDEX_URL={place}").returncode == 0
    installs = [line for line in calls(kit) if "pip install" in line]
    assert installs == [
        f"-m pip install -c constraints.txt --no-deps --index-url {place} torch torchvision",
        "-m pip install -c constraints.txt -e .[dev]",
    ]
    make(kit, "setup")
    assert calls(kit) == [], "the choice of TORCH_INDEX_URL was not remembered"


@pytest.mark.parametrize("python", ["./fake python", "no-such-python"])
def test_an_unusable_interpreter_is_one_sentence_and_leaves_the_environment_alone(make, kit, python):
    (kit / ".venv").mkdir()
    (kit / ".venv/mine").touch()
    done = make(kit, "setup", f"PYTHON={python}", REFUSE="1")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0].startswith(f"The kit needs Python 3.11 or newer, which PYTHON={python} is not")
    assert (kit / ".venv/mine").exists()


def test_clean_leaves_data_runs_and_the_published_run(make, kit):
    kept = ["data/scenes/build/x", "data/__pycache__/x", "reports/README.md", "reports/reference/x", "reports/runs/a/x",
            "reports/evaluations/a/x", "reports/sweeps/a/x", "reports/gpu/x",
            ".venv/__pycache__/x", "uwml_lib/x.py"]  # fmt: skip
    gone = ["build/x", "dist/x", "uwml_kit.egg-info/x", ".pytest_cache/x", ".ruff_cache/x", "uwml_lib/__pycache__/x",
            "notebooks/.ipynb_checkpoints/x", "reports/index.html", "reports/notebooks/x"]  # fmt: skip
    for name in kept + gone:
        (kit / name).parent.mkdir(parents=True, exist_ok=True)
        (kit / name).touch()
    assert make(kit, "clean").returncode == 0
    assert [name for name in kept if not (kit / name).exists()] == []
    assert [name for name in gone if (kit / name).exists()] == []


def test_the_makefile_needs_nothing_newer_than_make_3_81():
    newer = r"\.ONESHELL|\.RECIPEPREFIX|\.EXTRA_PREREQS|\.SHELLSTATUS|!=|&:|::=|\$\((?:file|let|intcmp|guile) "
    assert re.findall(newer + r"|^undefine\b|^define\b.*=|:\s*private\b", MAKEFILE, re.MULTILINE) == []


# --------------------------------------------------------------------------------- torch and numpy suffice for the core


def with_dependencies(*names: str) -> set[str]:
    """The installed distributions that these need, themselves included."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        try:
            requirements = [Requirement(line) for line in metadata.requires(name) or ()]
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        waiting += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


# Hides packages the way their absence would: no finder finds them.
HIDE = """
import sys
class Without:
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in hidden else self.finder.find_spec(name, *rest)
hidden = set(sys.argv[1].split(","))
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


TRAINING = [re.match(r"[\w-]+", requirement)[0] for requirement in PROJECT["optional-dependencies"]["training"]]


@pytest.mark.parametrize(
    ("packages", "modules"),
    [
        ((), CORE_MODULES),
        (TRAINING, ("training", "runs", "runs.run", "runs.search", "cli", "commands.train", "commands.search")),
    ],
    ids=["core", "training"],
)
def test_what_needs_little_imports_with_little(packages, modules):
    present = with_dependencies("torch", "numpy", *packages) | {canonicalize_name(PROJECT["name"])}
    owners = metadata.packages_distributions()
    hidden = [module for module, names in owners.items() if present.isdisjoint(map(canonicalize_name, names))]
    assert {"pandas", "matplotlib", "nltk", "sklearn", "scipy"} <= set(hidden)
    program = HIDE + "\n".join(f"import uwml_lib.{module}" for module in modules)
    done = subprocess.run(
        [sys.executable, "-c", program, ",".join(hidden)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def install(python, *arguments) -> None:
    """Call pip in an environment, with this kit's versions; skips the test where no index can be reached."""
    command = [python, "-m", "pip", arguments[0], "-q", "-c", ROOT / "constraints.txt", *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if "Failed to establish a new connection" in done.stderr or "name resolution" in done.stderr:
        pytest.skip("no package index can be reached from here")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def elsewhere(tmp_path):
    """What of the checkout is packaged, copied, and the Python of an environment of its own."""
    source, python = tmp_path / "source", tmp_path / "venv/bin/python"
    source.mkdir()
    shutil.copytree(ROOT / "uwml_lib", source / "uwml_lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    # the same torch as here, so that a machine with the CPU build does not fetch the large one
    if place := os.environ.get("TORCH_INDEX_URL"):
        install(python, "install", "--no-deps", "--index-url", place, "torch")
    return source, python


@pytest.mark.slow
def test_a_plain_install_brings_torch_and_numpy_and_the_core_works(elsewhere, tmp_path):
    source, python = elsewhere
    install(python, "install", str(source))

    program = "; ".join(f"import uwml_lib.{module}" for module in CORE_MODULES)
    program += "; import importlib.metadata as m; print(*(d.metadata['Name'] for d in m.distributions()))"
    done = subprocess.run([python, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    installed = set(map(canonicalize_name, done.stdout.split()))
    assert {"uwml-kit", "torch", "numpy"} <= installed
    extras = project_ranges().keys() - with_dependencies("torch", "numpy")
    assert installed.isdisjoint(extras)


@pytest.mark.slow
def test_a_wheel_in_an_environment_of_its_own_runs_notebook_4_and_the_losses(elsewhere, tmp_path):
    """Installed, not cloned: nothing of the checkout but the wheel, a notebook and an example."""
    source, python = elsewhere
    install(python, "wheel", "--no-deps", "-w", tmp_path, source)
    (wheel,) = tmp_path.glob("uwml_kit-*.whl")
    shutil.rmtree(source)
    install(python, "install", f"{wheel}[notebooks,pml]")

    work = tmp_path / "work"
    (work / "home").mkdir(parents=True)
    shutil.copy(ROOT / "notebooks/05_weight_functions.ipynb", work)
    shutil.copy(ROOT / "examples/digits_retrieval.py", work)
    environment = {
        **os.environ, "UWML_HOME": str(work / "home"), "JUPYTER_PREFER_ENV_PATH": "1", "PYTHONPATH": "",
        "UWML_HEADLESS": "1",  # papermill may wait for ever for what a slider draws
    }  # fmt: skip
    runs = (
        ["-m", "papermill", "05_weight_functions.ipynb", "out.ipynb", "-k", "python3", "--no-progress-bar"],
        ["digits_retrieval.py"],
        ["-m", "uwml_lib.cli", "train", "--dataset", "scenes_smoke", "--epochs", "1"],
    )
    for arguments in runs:
        done = subprocess.run(
            [python, *arguments], cwd=work, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (work / "home/reports/scenes/metrics/05_weight_functions.json").exists()
