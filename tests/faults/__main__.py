"""`python -m tests.faults`: put one fault after the other into a copy of the kit, and see which test notices it."""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.faults import mutants as mutants_list
from tests.faults.areas import AREAS
from tests.faults.faults import FAULTS, Fault
from tests.faults.mutants import ROOT, Mutant
from tests.faults.places import Place, find_line, find_text, library
from tests.faults.runner import changed, copy_checkout, preload, run_tests

SLOWEST = 1800.0
"""Seconds that the tests of an area may take without a fault."""


def main() -> int:
    """Try what was asked for; 1 if a fault survives, or a mutant that was killed before."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--faults", action="store_true", help="only the seeded faults")
    parser.add_argument("--mutants", action="store_true", help="only the drawn mutants")
    parser.add_argument("--only", action="append", help="only of this name or area; may be given again")
    parser.add_argument("--write", action="store_true", help="note in mutants.json which mutants were killed")
    wanted = parser.parse_args()
    both = wanted.faults == wanted.mutants
    began = time.monotonic()
    preload()
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder).resolve() / "kit")
        bad = 0
        if both or wanted.faults:
            bad += try_faults(trial, [fault for fault in FAULTS if _asked(fault, wanted.only)])
        if both or wanted.mutants:
            drawn = mutants_list.load()
            tried, worse = try_mutants(trial, [mutant for mutant in drawn if _asked(mutant, wanted.only)])
            bad += worse
            if wanted.write:
                now = {mutant.name: mutant for mutant in tried}
                mutants_list.save([now.get(mutant.name, mutant) for mutant in mutants_list.load()])
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

    def run(self, place: Place, after: str, area: str) -> tuple[str, float]:
        """Return the test that notices a change, "" if none does, and the seconds that took."""
        seconds = 0.0
        for tests in filter(None, AREAS[area]):
            limit = 60 + 4 * self.usual_seconds(tests)
            with changed(place, after):
                outcome = run_tests(self.copy, tests, limit)
            seconds += outcome.seconds
            if outcome.failed:
                return outcome.failed, seconds
        return "", seconds

    def usual_seconds(self, tests: tuple[str, ...]) -> float:
        """Run tests without a fault, once: they must pass, else what fails anyway would look like a fault caught."""
        if tests not in self.usual:
            outcome = run_tests(self.copy, tests, SLOWEST)
            if outcome.failed:
                log = self.copy.with_name("log").read_text(encoding="utf-8", errors="replace")
                raise SystemExit(f"{log[-4000:]}\ntests.faults: without any fault, {outcome.failed} fails")
            self.usual[tests] = outcome.seconds
            print(f"{' '.join(tests)} pass in {outcome.seconds:.0f} s", flush=True)
        return self.usual[tests]


def try_faults(trial: Trial, faults: Sequence[Fault]) -> int:
    """Try faults, say what came of each, and return how many were not caught."""
    counts: Counter[str] = Counter()
    for fault in faults:
        places = find_text(library(trial.copy), fault.before)
        if len(places) != 1:
            print(f"fault {fault.name}: found {len(places)} places, expected 1", flush=True)
            counts["not placed"] += 1
            continue
        test, seconds = trial.run(places[0], fault.after, fault.area)
        counts["caught" if test else "survived"] += 1
        print(f"{fault.name}: {f'caught by {test}' if test else 'SURVIVED'} in {seconds:.0f} s", flush=True)
    print(f"{len(faults)} faults: {_words(counts)}")
    return counts["survived"] + counts["not placed"]


def try_mutants(trial: Trial, mutants: Sequence[Mutant]) -> tuple[list[Mutant], int]:
    """Try mutants; return them with what came of each, and how many survive now that were killed before."""
    counts: Counter[str] = Counter()
    tried = []
    for mutant in mutants:
        places = find_line(library(trial.copy), mutant.before, mutant.scope)
        if len(places) != 1:
            print(f"{mutant.name}: not applicable, {len(places)} places: {mutant.before}", flush=True)
            counts["not applicable"] += 1
            continue
        test, seconds = trial.run(places[0], mutant.after, mutant.area)
        words = f"killed by {test}" if test else f"survived: {mutant.before} -> {mutant.after}"
        lost = not test and mutant.killed is True
        counts["killed" if test else "survived"] += 1
        counts["survived, but killed before"] += lost
        print(f"{mutant.name}: {'LOST, ' if lost else ''}{words} in {seconds:.0f} s", flush=True)
        tried.append(replace(mutant, killed=bool(test)))
    print(f"{len(mutants)} mutants: {_words(counts)}")
    return tried, counts["survived, but killed before"]


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "none tried"


if __name__ == "__main__":
    sys.exit(main())
