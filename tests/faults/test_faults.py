"""The lists of faults and mutants stay alive: each has one place in the library, and tests that answer for it."""

import ast
from pathlib import Path

from tests.faults.areas import AREAS
from tests.faults.faults import FAULTS, Fault
from tests.faults.mutants import DRAWN_FROM, PER_AREA, load
from tests.faults.places import find_line, find_text, library

ROOT = Path(__file__).parents[2]
SOURCES = library(ROOT)


def wrong_with(fault: Fault) -> str:
    """Say what a fault lacks to be one; "" of a good one."""
    if len(places := find_text(SOURCES, fault.before)) != 1:
        return f"fault {fault.name}: found {len(places)} places, expected 1"
    (place,) = places
    changed = place.replace(fault.after)
    if changed == SOURCES[place.file]:
        return f"fault {fault.name}: changes nothing"
    if place.file.suffix == ".py":
        ast.parse(changed)
    return ""


def test_every_fault_has_one_place():
    assert [words for fault in FAULTS if (words := wrong_with(fault))] == []


def test_every_area_has_faults_and_tests():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 40
    assert {fault.area for fault in FAULTS} == AREAS.keys()
    missing = [path for area in AREAS.values() for tests in area for path in tests if not (ROOT / path).exists()]
    assert missing == [], "see tests/faults/areas.py"


def test_of_every_mutant_it_is_known_whether_it_was_killed():
    mutants = load()
    assert [mutant.name for mutant in mutants] == [
        f"{area}-{n:02}" for area in DRAWN_FROM for n in range(1, PER_AREA + 1)
    ]
    assert DRAWN_FROM.keys() <= AREAS.keys()
    assert {mutant.killed for mutant in mutants} == {True, False}
    assert all(bool(mutant.by) == mutant.killed for mutant in mutants)


def test_most_mutants_still_have_one_place():
    """Code changes; a mutant whose line has moved is aimed anew by hand, or drawn anew when many have."""
    lost = [mutant.name for mutant in load() if len(find_line(SOURCES, mutant.before, mutant.scope)) != 1]
    assert len(lost) <= 15, lost
