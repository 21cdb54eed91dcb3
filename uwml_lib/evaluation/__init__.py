"""Retrieval metrics, the score matrix of a split, and statistics that compare groups of runs."""

from uwml_lib.evaluation.metrics import METRICS, RANKS, RECALL_AT, fold_metrics, released_lines, retrieval_metrics
from uwml_lib.evaluation.scores import evaluate_model, products, score_matrix
from uwml_lib.evaluation.statistics import (
    Comparison,
    Interval,
    Summary,
    chance_rsum,
    compare,
    compare_all,
    paired_bootstrap,
    paired_interval,
    remark_on_size,
    rsum_by_image,
    summarize,
)

__all__ = [
    "METRICS", "RANKS", "RECALL_AT", "Comparison", "Interval", "Summary", "chance_rsum", "compare", "compare_all",
    "evaluate_model", "fold_metrics", "paired_bootstrap", "paired_interval", "products", "released_lines",
    "remark_on_size", "retrieval_metrics", "rsum_by_image", "score_matrix", "summarize",
]  # fmt: skip
