"""What the numbers of an epoch tell of a training that goes wrong without an error."""

from collections.abc import Iterator, Sequence
from typing import Any

from uwml_lib.config import ExperimentConfig
from uwml_lib.losses import ScoreMatrixLoss
from uwml_lib.runs.run import stands_still


def alarms(
    config: ExperimentConfig, loss: ScoreMatrixLoss, steps: Sequence[dict[str, Any]], rsum: float, chance: float
) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong; steps: records of the epoch just done, whose rsum is given."""
    loss_is, positive, hardest = (
        sum(step[name] for step in steps) / len(steps) for name in ("loss", "positive_score", "hardest_negative_score")
    )
    if not any(step["gradient_norm"] for step in steps):  # None: not one of these steps had a finite one
        yield (
            f"no step of this epoch had a gradient that is finite and not zero (loss {loss_is:.4g}): nothing was "
            "learnt; look at loss_options and mixed_precision"
        )
    elif steps[0]["epoch"] and stands_still(positive - hardest, rsum, chance):  # in the first one every training may
        advice = ["lower learning_rate"]
        if loss.dense_negatives and config.warmup_epochs < config.epochs:
            longest = f"{config.epochs} takes all informative negatives to the end"
            advice.insert(0, f"raise warmup_epochs, now {config.warmup_epochs} ({longest})")
        if loss.reduction == "sum" and config.gradient_clip:
            advice.append('take "reduction": "mean" in loss_options, whose gradient is clipped less')
        yield (
            f"the loss is that of equal scores ({loss_is:.4g}; positives {positive:.3f}, hardest negatives "
            f"{hardest:.3f}), the rsum {rsum:.1f}, chance {chance:.1f}: if the rsum does not go on rising, the "
            f"training has collapsed; then {', or '.join(advice)}"
        )
