"""Processes that are one another's peers, for tests of losses over several of them."""

import subprocess
import sys
from pathlib import Path


def run_side_by_side(module: str, processes: int, folder: Path) -> None:
    """Run `python -m MODULE RANK PROCESSES FILE` for every rank, and fail, with what all said, unless all end well."""
    ranks = [[sys.executable, "-m", module, str(rank), str(processes), str(folder / "f")] for rank in range(processes)]
    jobs = [subprocess.Popen(rank, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for rank in ranks]
    try:
        said = [job.communicate(timeout=180)[0] for job in jobs]
    finally:
        for job in jobs:
            job.kill()
    assert [job.returncode for job in jobs] == [0] * processes, said
