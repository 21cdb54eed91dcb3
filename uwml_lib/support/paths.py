"""Every path of the project, from one root."""

import os
from pathlib import Path

from uwml_lib.support.errors import UWMLError

CHECKOUT = Path(__file__).resolve().parents[2]


def project_root() -> Path:
    """Where data and reports go: `UWML_HOME` if set, else the checkout around this package, else the working folder."""
    if home := os.environ.get("UWML_HOME"):
        return absolute_path("UWML_HOME", home)
    return CHECKOUT if (CHECKOUT / "pyproject.toml").is_file() else Path.cwd()


def absolute_path(name: str, path: str) -> Path:
    try:
        return Path(path).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise UWMLError(f"{name}: found {path!r}, expected a folder ({error})") from error


ROOT = project_root()
DATA = ROOT / "data"
NOTEBOOKS = CHECKOUT / "notebooks"
REPORTS = ROOT / "reports"
RUNS = REPORTS / "runs"
EVALUATIONS = REPORTS / "evaluations"
SWEEPS = REPORTS / "sweeps"
AUDITS = REPORTS / "audits"
REFERENCE = REPORTS / "reference"
RELIABILITY = REFERENCE / "reliability.json"
PERFORMANCE = REFERENCE / "performance"
NO_DATASET = {
    "_images", "_static", "assets", "audits", "evaluations", "figures", "notebooks", "pages", "performance",
    "reference", "runs", "studies", "sweeps",
}  # fmt: skip
"""Folders of reports and of reports/reference that are of no data set, which could not be called so."""


def reference_folder(dataset: str) -> Path:
    """Where the published results on a data set are: reports/reference for scenes, a folder in it for any other."""
    return REFERENCE if dataset == "scenes" else REFERENCE / dataset.removesuffix("_precomp")


def report_folder(dataset: str) -> Path:
    """Where the executed notebooks, the figures and the pages of a data set go."""
    return REPORTS / dataset
