"""One step at the paper's size, cross attention and polynomial loss, forward and backward, both directions.

Against the loop of the release, and against the floor: the bare products of all regions with all valid words and their
gradients, which no exact implementation can leave out. Also with coarser products, and what they cost in accuracy.
`python benchmarks/step.py`
"""

from collections.abc import Callable
from functools import partial

import matplotlib.pyplot as plt
import torch
from loops import loop_loss, loop_scores
from measuring import (
    DEVICE,
    LOOK,
    Call,
    Target,
    arguments,
    peak_beyond_now,
    peak_memory,
    plain_logarithm,
    report,
    style,
    take_turns,
)
from torch import Tensor
from torch.nn.functional import normalize

from uwml_lib.config import Precision
from uwml_lib.evaluation import products
from uwml_lib.losses import PolynomialLoss
from uwml_lib.models import cross_attention_scores

BATCH, REGIONS, WORDS, WIDTH = 128, 36, (8, 24), 1024
LOSS = PolynomialLoss(check_finite=False)
ON_CPU = DEVICE.type == "cpu"
FASTER = {"i2t": 16, "t2i": 10}  # than the loop, wanted of a CPU
COARSER: dict[str, Precision] = {"bfloat16": "bf16"} if DEVICE.type != "cuda" else {"bfloat16": "bf16", "tf32": "tf32"}
Inputs = tuple[Tensor, Tensor, Tensor]
plain_scores = partial(cross_attention_scores, implementation="plain")
fused_scores = partial(cross_attention_scores, implementation="fused")


def inputs(batch: int = BATCH, regions: int = REGIONS, words: tuple[int, int] = WORDS, width: int = WIDTH) -> Inputs:
    """Return images (batch, regions, width), captions (batch, words, width) and lengths; unit vectors, padding zero."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(words[0], words[1] + 1, (batch,), generator=generator)
    images = normalize(torch.randn(batch, regions, width, generator=generator), dim=-1)
    captions = normalize(torch.randn(batch, int(lengths.max()), width, generator=generator), dim=-1)
    captions = captions.masked_fill((torch.arange(captions.shape[1]) >= lengths[:, None])[..., None], 0)
    return images.to(DEVICE).requires_grad_(), captions.to(DEVICE).requires_grad_(), lengths


def gradients(scores: Callable[..., Tensor], loss: Callable[[Tensor], Tensor], direction: str, batch: Inputs) -> tuple:
    """Return the gradients of the embeddings."""
    images, captions, lengths = batch
    return torch.autograd.grad(loss(scores(images, captions, lengths, direction).float()), (images, captions))


def floor(batch: Inputs, dtype: torch.dtype = torch.float32) -> Call:
    """Return the bare products over valid words, forward and backward, of numbers of this type, as a call."""
    images, captions, lengths = batch
    regions = images.detach().flatten(0, 1).to(dtype)
    words = torch.cat([caption[:length] for caption, length in zip(captions.detach(), lengths, strict=True)]).to(dtype)
    gradient = torch.randn(len(regions), len(words), device=DEVICE, dtype=dtype)

    def call() -> None:
        regions @ words.T
        gradient @ words
        gradient.T @ regions

    return call


def calls(direction: str, batch: Inputs) -> dict[str, Call]:
    """Return what is measured."""

    def kit() -> tuple:
        return gradients(fused_scores, LOSS, direction, batch)

    return {
        "floor": floor(batch),
        "kit": kit,
        **{f"kit, {name} products": products(precision, DEVICE)(kit) for name, precision in COARSER.items()},
        "plain": lambda: gradients(plain_scores, LOSS, direction, batch),
        "loop, kit's loss": lambda: gradients(loop_scores, LOSS, direction, batch),
        "loop": lambda: gradients(loop_scores, loop_loss, direction, batch),
    }


def accuracy(direction: str, batch: Inputs, precision: Precision) -> dict[str, float]:
    """Return how far coarser products move scores, at most, and gradients, as a share of their length."""

    def found() -> tuple:
        return fused_scores(*batch, direction).detach(), *gradients(fused_scores, LOSS, direction, batch)

    (scores, *exact), (moved, *others) = found(), products(precision, DEVICE)(found)()
    off = max(float((a - b).norm() / b.norm()) for a, b in zip(others, exact, strict=True))
    return {"scores": float((moved - scores).abs().max()), "gradients": off}


def main() -> None:
    if (peak := arguments(__doc__).peak) is not None:
        name, direction = peak
        print(peak_beyond_now(calls(direction, inputs())[name]))
        return
    found, rows, targets = {}, [], []
    for direction in ("i2t", "t2i"):
        batch = inputs()
        measured = calls(direction, batch)
        loops = {name: measured.pop(name) for name in ("loop, kit's loss", "loop")}
        seconds = take_turns(measured)
        seconds |= take_turns(loops, rounds=1)
        peak = {name: peak_memory(name, direction) for name in ("kit", "plain", "loop")}
        errors = {name: accuracy(direction, batch, precision) for name, precision in COARSER.items()}
        found[direction] = {"seconds": seconds, "peak_bytes": peak, "errors": errors}
        for name in seconds:
            rows.append({
                "step": f"{direction}, {name}",
                "seconds": f"{seconds[name]:.3f}",
                "of the floor": f"{seconds[name] / seconds['floor']:.2f}",
                "loop / this": f"{seconds['loop'] / seconds[name]:.1f}",
                "peak memory, MB": f"{peak[name] / 1e6:.0f}" if name in peak else "–",
            })  # fmt: skip
        targets += [
            Target(f"{direction}: kit / floor", seconds["kit"] / seconds["floor"], 1.4, at_most=True),
            *(
                [Target(f"{direction}: loop / kit", seconds["loop"] / seconds["kit"], FASTER[direction])]
                if ON_CPU
                else []
            ),
            Target(f"{direction}: memory of the kit / of the loop", peak["kit"] / peak["loop"], 0.1, at_most=True),
        ]
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharex=True, sharey=True)
        for axis, (direction, values) in zip(axes, found.items(), strict=True):
            names, seconds = list(values["seconds"]), list(values["seconds"].values())
            colors = [LOOK[name.split(",")[0]]["color"] for name in names]
            bars = axis.barh(names, seconds, color=colors)
            axis.bar_label(bars, [f"{value / seconds[0]:.3g} ×" for value in seconds], padding=3)
            plain_logarithm(axis)
            axis.set(xlabel="seconds; × floor", title=direction)
            axis.margins(x=0.2)
        axes[0].invert_yaxis()
    least = min(values["seconds"]["floor"] / values["seconds"]["kit"] for values in found.values())
    moved = {
        name: {kind: max(values["errors"][name][kind] for values in found.values()) for kind in ("scores", "gradients")}
        for name in COARSER
    }
    cost = "; ".join(
        f"{name} products put scores off by at most {off['scores']:.1g} and gradients by {off['gradients']:.1%} of "
        "their length" for name, off in moved.items()
    )  # fmt: skip
    report(
        "step",
        f"A step at the paper's size: {BATCH} pairs, {REGIONS} regions, {WORDS[0]} to {WORDS[1]} words, width {WIDTH}",
        rows,
        figure,
        "Bars of seconds, logarithmic, for each direction: the floor and the kit close together, the loop far longer.",
        f"The matrix products take at least {least:.0%} of the kit's time. The rest are some thirty passes over the "
        f"array of similarities{', in blocks that stay in the cache' if ON_CPU else ''}. `--mixed-precision`: {cost}.",
        targets,
        **found,
    )  # fmt: skip


if __name__ == "__main__":
    main()
