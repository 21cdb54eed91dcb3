"""What all studies together found about the two losses, in a sentence."""

from collections import Counter
from collections.abc import Iterable

from uwml_lib.reports.report import Report


def in_short(reports: Iterable[Report]) -> str:
    """Count, over all models and data sets, which loss is ahead; "" where nothing was compared.

    What two studies compared is counted once, as the later one has it.
    """
    outcomes: dict[str, str] = {}
    for report in reports:
        outcomes |= report.outcomes
    counts = Counter(outcomes.values())
    if not outcomes:
        return ""
    parts = [
        f"the polynomial loss is ahead in {counts['polynomial']}" if counts["polynomial"] else "",
        f"the triplet loss is ahead in {counts['triplet']}" if counts["triplet"] else "",
        f"{counts['']} {'does' if counts[''] == 1 else 'do'} not decide between them" if counts[""] else "",
        f"in {counts['collapsed']} trainings collapsed" if counts["collapsed"] else "",
    ]
    made = "One comparison was made" if len(outcomes) == 1 else f"{len(outcomes)} comparisons were made"
    return f"{made}, each of one model on one data set: {'; '.join(filter(None, parts))}."
