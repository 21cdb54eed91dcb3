"""Where tests of sweeps and of tuning put what they make."""

import pytest

from uwml_lib.studies import tuning
from uwml_lib.support import paths


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder for runs and sweeps; a sweep works in one process, and looks often for what others do."""
    for name in ("RUNS", "SWEEPS"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    monkeypatch.setattr(tuning, "workers", lambda threads: 1)
    monkeypatch.setattr(tuning, "POLL", 0.01)
    return tmp_path
