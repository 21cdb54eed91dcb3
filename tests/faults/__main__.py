"""`python -m tests.faults`: put one fault after the other into a copy of the kit, and see which test notices it."""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.faults.areas import AREAS
from tests.faults.faults import FAULTS, Fault, caught_by, save_caught
from tests.faults.mutants import ROOT, Mutant
from tests.faults.mutants import load as load_mutants
from tests.faults.mutants import save as save_mutants
from tests.faults.places import Place, find_line, find_text, library
from tests.faults.runner import NoTests, changed, copy_checkout, preload, run_tests

SLOWEST = 1800.0
"""Seconds that the tests of an area may take without a fault."""


def main() -> int:
    """Try what was asked for; 1 if a fault survives, or a mutant that was killed before."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--faults", action="store_true", help="only the seeded faults")
    parser.add_argument("--mutants", action="store_true", help="only the drawn mutants")
    parser.add_argument("--only", action="append", help="only of this name or area; may be given again")
    parser.add_argument("--write", action="store_true", help="note which test caught or killed each")
    wanted = parser.parse_args()
    both = wanted.faults == wanted.mutants
    began = time.monotonic()
    preload()
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder).resolve() / "kit")
        bad = 0
        if both or wanted.faults:
            caught, missed = try_faults(trial, [fault for fault in FAULTS if _asked(fault, wanted.only)])
            bad += missed
            if wanted.write:
                save_caught(caught_by() | caught)
        if both or wanted.mutants:
            drawn = load_mutants()
            tried, lost = try_mutants(trial, [mutant for mutant in drawn if _asked(mutant, wanted.only)])
            bad += lost
            if wanted.write:
                save_mutants([tried.get(mutant.name, mutant) for mutant in drawn])
    print(f"in {(time.monotonic() - began) / 60:.0f} minutes")
    return int(bad > 0)


def _asked(item: Fault | Mutant, only: Sequence[str] | None) -> bool:
    return not only or item.name in only or item.area in only


class Trial:
    """A copy of the checkout, and how long the tests of each area take there without a fault."""

    def __init__(self, copy: Path) -> None:
        self.copy = copy
        self.usual: dict[tuple[str, ...], float] = {}
        copy_checkout(ROOT, copy)

    def run(self, place: Place, after: str, area: str, likely: str) -> tuple[str, float]:
        """Return the test that notices a change, "" if none does, and the seconds that took; ask `likely` first."""
        selections = [*filter(None, AREAS[area])]
        asked = [((likely,), tests) for tests in selections if likely.startswith(tests)]
        seconds = 0.0
        for tests, of in [*asked, *((tests, tests) for tests in selections)]:
            limit = 60 + 4 * self.usual_seconds(of)
            try:
                with changed(place, after):
                    outcome = run_tests(self.copy, tests, limit)
            except NoTests:  # the likely one was renamed
                continue
            seconds += outcome.seconds
            if outcome.failed:
                return outcome.failed, seconds
        return "", seconds

    def usual_seconds(self, tests: tuple[str, ...]) -> float:
        """Run tests without a fault, once: they must pass, else what fails anyway would look like a fault caught."""
        if tests not in self.usual:
            try:
                outcome = run_tests(self.copy, tests, SLOWEST)
            except NoTests as error:
                raise SystemExit(f"tests.faults: {error}") from error
            if outcome.failed:
                log = self.copy.with_name("log").read_text(encoding="utf-8", errors="replace")
                raise SystemExit(f"{log[-4000:]}\ntests.faults: without any fault, {outcome.failed} fails")
            self.usual[tests] = outcome.seconds
            print(f"{' '.join(tests)} pass in {outcome.seconds:.0f} s", flush=True)
        return self.usual[tests]


def try_faults(trial: Trial, faults: Sequence[Fault]) -> tuple[dict[str, str], int]:
    """Try faults, and say what came of each; return which test caught each, and how many were not caught."""
    caught: dict[str, str] = {}
    counts: Counter[str] = Counter()
    likely = caught_by()
    for fault in faults:
        places = find_text(library(trial.copy), fault.before)
        if len(places) != 1:
            print(f"fault {fault.name}: found {len(places)} places, expected 1", flush=True)
            counts["not placed"] += 1
            continue
        test, seconds = trial.run(places[0], fault.after, fault.area, likely.get(fault.name, ""))
        counts["caught" if test else "survived"] += 1
        if test:
            caught[fault.name] = test
        print(f"{fault.name}: {f'caught by {test}' if test else 'SURVIVED'} in {seconds:.0f} s", flush=True)
    print(f"{len(faults)} faults: {_words(counts)}")
    return caught, counts["survived"] + counts["not placed"]


def try_mutants(trial: Trial, mutants: Sequence[Mutant]) -> tuple[dict[str, Mutant], int]:
    """Try mutants; return them by name, with what came of each, and how many survive now that were killed before."""
    tried: dict[str, Mutant] = {}
    counts: Counter[str] = Counter()
    for mutant in mutants:
        places = find_line(library(trial.copy), mutant.before, mutant.scope)
        if len(places) != 1:
            print(f"{mutant.name}: not applicable, {len(places)} places: {mutant.before}", flush=True)
            counts["not applicable"] += 1
            continue
        test, seconds = trial.run(places[0], mutant.after, mutant.area, mutant.by)
        lost = not test and mutant.killed is True
        words = (
            f"killed by {test}" if test else f"{'SURVIVED' if lost else 'survived'}: {mutant.before} -> {mutant.after}"
        )
        counts["killed" if test else "survived"] += 1
        counts["killed before, but not now"] += lost
        print(f"{mutant.name}: {words} in {seconds:.0f} s", flush=True)
        tried[mutant.name] = replace(mutant, killed=bool(test), by=test)
    print(f"{len(mutants)} mutants: {_words(counts)}")
    return tried, counts["killed before, but not now"]


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "none tried"


if __name__ == "__main__":
    sys.exit(main())
