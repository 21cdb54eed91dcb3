"""Does the test suite notice mistakes? Faults seeded by hand and mutants drawn by lot, each put into a copy of the kit.

`python -m tests.faults` tries them all; `faults.py` and `mutants.json` are the lists, `areas.py` says which tests each
area asks.
"""
