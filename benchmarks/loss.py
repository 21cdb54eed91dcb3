"""The polynomial loss alone, forward and backward, by batch size, against the release's loop over anchors.

The loop is timed up to 256 pairs. What bounds the kit's loss is memory, so its time is put beside that of copying the
scores. `python benchmarks/loss.py`
"""

import matplotlib.pyplot as plt
import torch
from loops import loop_loss
from measuring import (
    DEVICE,
    Call,
    Target,
    arguments,
    draw_by_size,
    once,
    peak_beyond_now,
    peak_memory,
    report,
    style,
    take_turns,
)

from uwml_lib.losses import PolynomialLoss

SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
LOOP_TO = 256
NUMBERS = 4  # bytes of one
LOSS = PolynomialLoss(check_finite=False)  # as in training, which looks for itself


def scores_of(n: int) -> torch.Tensor:
    """Return random scores (n, n)."""
    return torch.rand(n, n, generator=torch.Generator().manual_seed(0)).to(DEVICE).requires_grad_()


def candidates(n: int) -> dict[str, Call]:
    """Return what is measured on n pairs; reductions: the largest score of every row and column, and no gradient."""
    scores = scores_of(n)
    plain, target = scores.detach(), torch.empty(n, n, device=DEVICE)
    calls: dict[str, Call] = {
        "kit": lambda: torch.autograd.grad(LOSS(scores), scores),
        "copy": lambda: target.copy_(plain),
        "reductions": lambda: (plain.amax(dim=0), plain.amax(dim=1)),
    }
    return calls | ({"loop": lambda: torch.autograd.grad(loop_loss(scores), scores)} if n <= LOOP_TO else {})


def main() -> None:
    if (peak := arguments(__doc__).peak) is not None:
        print(peak_beyond_now(candidates(int(peak[1]))[peak[0]]))
        return
    seconds, rows = {}, []
    for n in SIZES:
        calls = candidates(n)
        loop = calls.pop("loop", None)
        seconds[n] = take_turns(calls, rounds=7 if n > 2000 else 30)
        if loop:
            seconds[n]["loop"] = once(loop)
        loop, kit, copy = (seconds[n].get(name) for name in ("loop", "kit", "copy"))
        peak = peak_memory("kit", str(n)) / (NUMBERS * n * n) if n >= 1024 else None
        rows.append({
            "pairs": f"{n:,}",
            "kit, ms": f"{1e3 * kit:.2f}",
            "loop / kit": f"{loop / kit:.0f}" if loop else "–",
            "kit / copying the scores": f"{kit / copy:.1f}",
            "peak memory / scores": f"{peak:.1f}" if peak else "–",
        })  # fmt: skip
    with style():
        figure, axis = plt.subplots(figsize=(7, 3.6))
        forms = {"the release's loop": ("loop", "loop"), "kit": ("kit", "kit"), "copying the scores": ("floor", "copy")}
        lines = {
            label: (look, {n: 1e3 * values[name] for n, values in seconds.items() if name in values})
            for label, (look, name) in forms.items()
        }
        draw_by_size(axis, "milliseconds", "The loss alone", lines)
    report(
        "loss",
        "The polynomial loss alone, forward and backward",
        rows,
        figure,
        "Milliseconds against pairs in a batch, both logarithmic: the loop far above the kit, the kit above the copy.",
        "Up to about 256 pairs it is the time to start torch's operations; beyond, it is memory: scores are read in "
        "both directions, masked and compared, and their gradient is written.",
        [Target("loop / kit at 128 pairs", seconds[128]["loop"] / seconds[128]["kit"], 100)],
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
