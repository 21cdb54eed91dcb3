"""Of `gpu.py`'s steps: losses from embeddings by batch size, without ever holding the scores, against the product."""

import functools

import embeddings as from_embeddings
import torch
from gpu_notes import CARD, PRECISIONS, SMOKE, Part, cell, forget, profiled, ratio, waits, what_bounds
from measuring import DEVICE, peak_beyond_now

from uwml_lib.evaluation import products

SIZES = (64, 128) if SMOKE else (4096, 16384, 65536, 131072)
AIMED = SIZES[-1] if SMOKE else 65536
PRODUCT, MEMORY = 1.5, 2  # a step, of the bare product in tf32; gigabytes beyond embeddings and gradients
FORMS = {"product": "bare product", "kit": "polynomial", "infonce": "InfoNCE"}


def embeddings(part: Part) -> None:
    """Forward and backward of the polynomial loss and of InfoNCE; the longest, in float32, only while there is time."""
    for n in SIZES:
        for precision in ("tf32", *(name for name in PRECISIONS if name != "tf32")):
            if part.left > 8 or precision == "tf32":
                part.attempt(f"{n:,} pairs, {precision}", functools.partial(measure, part, n, precision))
                forget()


def measure(part: Part, n: int, precision: str) -> None:
    """Time a batch size in a precision; memory and what bounds it at the largest that is aimed at."""
    calls = from_embeddings.candidates(n, torch.bfloat16 if precision == "bf16" else torch.float32)
    context = products("tf32" if precision == "tf32" else "float32", DEVICE)
    calls = {name: context(calls[name]) for name in FORMS}
    took = part.medians(calls, 0.6, most=10)
    part.add(embeddings=part.found.get("embeddings", {}) | {f"{n}, {precision}": took})
    times = {f"{title}, ms": cell(took[name]) for name, title in FORMS.items()}
    part.row("From embeddings", {
        "pairs": f"{n:,}", "precision": precision, **times,
        "polynomial / product": cell(above := ratio(took["kit"], took["product"])),
        "InfoNCE / product": cell(ratio(took["infonce"], took["product"])),
    })  # fmt: skip
    if n != AIMED or precision != "tf32":
        return
    what = f"{n:,} pairs, tf32"
    if above is not None:
        part.aim(f"{what}: polynomial / bare product", above, PRODUCT, at_most=True)
    beyond = part.attempt("memory", lambda: peak_beyond_now(calls["kit"]))
    if beyond is not None:
        gigabytes = (beyond - 2 * n * from_embeddings.WIDTH * 4) / 1e9
        part.aim(f"{what}: polynomial, GB beyond embeddings and gradients", gigabytes, MEMORY, at_most=True)
    if (waited := waits(calls["kit"])) is not None:
        part.aim(f"{what}: waits of the host", waited, 0, at_most=True)
    part.say(what_bounds(f"Polynomial, {what}, on {CARD}", took["kit"], profiled(calls["kit"]), took["product"]))
