"""Losses from embeddings, forward and backward, by batch size, against the plain form and the bare product.

The bare product is that of all scores, block of rows by block of rows into the same memory, and no more; the plain
form, which holds the scores, is measured up to 4,096 pairs. All of one size take turns; memory is what comes beyond
embeddings and their gradients, in a process of its own. On a CPU 128 to 32,768 pairs, the largest for memory alone; on
a graphics card 4,096 to 131,072. Float32 of width 512. `python benchmarks/embeddings.py`
"""

import matplotlib.pyplot as plt
import torch
from measuring import (
    DEVICE,
    Call,
    Row,
    Target,
    arguments,
    draw_by_size,
    peak_beyond_now,
    peak_memory,
    report,
    style,
    take_turns,
)
from torch.nn.functional import normalize

from uwml_lib.losses import InfoNCELoss, PolynomialLoss
from uwml_lib.losses.streaming import ROWS

CPU = DEVICE.type == "cpu"
SIZES = (128, 512, 2048, 4096, 16384) if CPU else (4096, 16384, 65536, 131072)
FOR_MEMORY, MEMORY_FROM, PLAIN_TO, WIDTH = (16384, 32768), 2048, 4096, 512
NAMES = {"kit": "polynomial", "infonce": "InfoNCE", "plain": "polynomial, plain"}
LOSSES = {"kit": PolynomialLoss(check_finite=False), "infonce": InfoNCELoss(check_finite=False)}  # as in training


def embeddings(n: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random images and captions (n, WIDTH)."""
    generator = torch.Generator().manual_seed(0)
    both = (torch.randn(n, WIDTH, generator=generator).to(DEVICE, dtype) for _ in range(2))
    images, captions = (each.requires_grad_() for each in both)
    return images, captions


def bare_product(images: torch.Tensor, captions: torch.Tensor) -> None:
    """Multiply all pairs and keep nothing."""
    memory = images.new_empty(min(ROWS, len(images)), len(captions))
    for rows in images.split(ROWS):
        torch.mm(rows, captions.T, out=memory[: len(rows)])


def candidates(n: int, dtype: torch.dtype = torch.float32) -> dict[str, Call]:
    """Return what is measured on n pairs; each but the product returns both gradients."""
    both = embeddings(n, dtype)

    def plain() -> torch.Tensor:
        return LOSSES["kit"](normalize(both[0]) @ normalize(both[1]).T)

    calls: dict[str, Call] = {"product": lambda: bare_product(both[0].detach(), both[1].detach())}
    for name, loss in LOSSES.items():
        calls[name] = lambda loss=loss: torch.autograd.grad(loss.from_embeddings(*both), both)
    return calls | ({"plain": lambda: torch.autograd.grad(plain(), both)} if n <= PLAIN_TO else {})


def beyond(name: str, n: int) -> float:
    """Return the megabytes at the peak beyond embeddings and their gradients."""
    return peak_memory(name, str(n)) / 1e6 - 2 * n * WIDTH * 4 / 1e6


def measure(sizes: tuple[int, ...]) -> tuple[list[Row], dict[int, dict[str, float]], dict[int, dict[str, float]]]:
    """Return rows, seconds and megabytes by size."""
    rows, seconds, megabytes = [], {}, {}
    for n in sizes:
        calls = candidates(n)
        seconds[n] = took = take_turns(calls, rounds=3 if n > 8192 else 7)
        megabytes[n] = {name: beyond(name, n) for name in calls if name != "product"} if n >= MEMORY_FROM else {}
        del calls
        row = {"pairs": f"{n:,}", "bare product, s": f"{took['product']:.3g}"}
        for name, title in NAMES.items():
            row[f"{title} / product"] = f"{took[name] / took['product']:.2f}" if name in took else "–"
            row[f"{title}, MB"] = f"{megabytes[n][name]:.0f}" if name in megabytes[n] else "–"
        rows.append(row)
    return rows, seconds, megabytes


def main() -> None:
    if (peak := arguments(__doc__).peak) is not None:
        call = candidates(int(peak[1]))[peak[0]]
        small = embeddings(2 * ROWS, torch.float32)
        torch.autograd.grad(LOSSES["kit"].from_embeddings(*small), small)  # libraries are loaded
        print(peak_beyond_now(call))
        return
    rows, seconds, megabytes = measure(SIZES)
    n = max(SIZES)
    took = seconds[n]
    targets = [
        Target(f"polynomial / product at {n:,} pairs", took["kit"] / took["product"], 1.3, at_most=True),
        Target(f"InfoNCE / four products at {n:,} pairs", took["infonce"] / took["product"] / 4, 1.5, at_most=True),
    ]
    if CPU:
        few, many = (megabytes.get(n, {}).get("kit") or beyond("kit", n) for n in FOR_MEMORY)
        targets.append(Target(f"polynomial, MB beyond at {FOR_MEMORY[0]:,} pairs", few, 250, at_most=True))
        targets.append(
            Target(
                f"polynomial, MB beyond at {FOR_MEMORY[1]:,} pairs / at {FOR_MEMORY[0]:,}",
                many / few,
                2.2,
                at_most=True,
            )
        )
    with style():
        figure, axis = plt.subplots(figsize=(7, 3.6))
        lines = {
            NAMES.get(name, name): (look, {n: took[name] for n, took in seconds.items() if name in took})
            for name, look in (("product", "floor"), ("kit", "kit"), ("infonce", "loop"), ("plain", "plain"))
        }
        draw_by_size(axis, "seconds", "From embeddings", lines)
    report(
        "embeddings",
        "Losses from embeddings, forward and backward",
        rows,
        figure,
        "Seconds against pairs, both logarithmic: the polynomial loss close above the bare product, InfoNCE higher.",
        "The product bounds the polynomial loss; the rest finds the largest scores and their places. InfoNCE makes the "
        "product twice and two more for the gradient; the rest is exponentials.",
        targets,
        seconds=seconds,
        megabytes=megabytes,
    )


if __name__ == "__main__":
    main()
