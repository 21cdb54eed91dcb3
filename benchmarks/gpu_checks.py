"""A part of `gpu.py`: the tests that need a card, counted while they run."""

import pytest
from gpu_notes import Part

from uwml_lib.support.paths import CHECKOUT

LOSSES = "tests/losses/test_losses.py"
TESTS = ("tests/test_cuda.py", f"{LOSSES}::test_low_precision", f"{LOSSES}::test_no_wait_for_cuda")


class Outcomes:
    """A plugin of pytest that notes the outcome of every test as soon as it is there."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.failures: list[str] = []

    def pytest_runtest_logreport(self, report: object) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1
            if report.outcome == "failed":
                self.failures.append(f"{report.nodeid}: {report.longrepr and report.longreprtext.splitlines()[-1]}")
            self.part.add(tests=self.counts, failures=self.failures)


def checks(part: Part) -> None:
    """The tests that need a card: no waiting in a step, the accuracy of faster products, half precision."""
    outcomes = Outcomes(part)
    arguments = ["-q", "-p", "no:cacheprovider", "--rootdir", str(CHECKOUT), "-k", "cuda"]
    status = pytest.main([*arguments, *(str(CHECKOUT / test) for test in TESTS)], plugins=[outcomes])
    part.row("Tests", {name: str(count) for name, count in outcomes.counts.items()})
    not_passed = outcomes.counts["failed"] + outcomes.counts["skipped"]
    part.aim("tests that failed or were skipped", not_passed, 0, at_most=True)
    for failure in outcomes.failures[:5]:
        part.say(f"{failure}.")
    if not sum(outcomes.counts.values()):
        raise RuntimeError(f"pytest found no test (exit status {int(status)})")
