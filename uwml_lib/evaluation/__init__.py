"""Retrieval metrics, the score matrix of a split, and statistics that compare groups of runs.

>>> import numpy as np
>>> from uwml_lib.evaluation import paired_interval, retrieval_metrics
>>> scores = np.array([[0.9, 0.2], [0.8, 0.7]])  # two images, two captions, the right pairs on the diagonal
>>> metrics = retrieval_metrics(scores, captions_per_image=1)
>>> metrics["image_to_text_recall_at_1"], metrics["text_to_image_recall_at_1"]
(50.0, 100.0)
>>> print(paired_interval([431.0, 437.0, 436.0], [420.0, 428.0, 429.0]))  # three seeds of two losses, in rsum
+9.0 [+4.0, +14.0]
"""

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
