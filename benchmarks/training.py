"""A whole training step of SCAN at the paper's size, where its time goes, and the same step as the release works.

The release's step is the same encoders, optimiser and clipping with its loop for attention and loss. `--full` takes
batches of 1,024 pairs, without the loop, and finds the memory they need. `python benchmarks/training.py`
"""

import matplotlib.pyplot as plt
import torch
from loops import loop_loss, loop_scores
from measuring import (
    DEVICE,
    LOOK,
    Target,
    arguments,
    once,
    peak_beyond_now,
    peak_memory,
    report,
    style,
    take_turns,
)
from step import BATCH, LOSS, REGIONS, WIDTH, WORDS
from torch import Tensor

from uwml_lib.config import Precision
from uwml_lib.evaluation import products
from uwml_lib.models import SCAN

FEATURES, VOCABULARY = 2048, 8481  # of bottom-up attention, and of the released vocabulary
LARGE, MEMORY = 1024, 24  # pairs, and the gigabytes wanted for them
PRECISIONS: tuple[Precision, ...] = ("tf32", "bf16") if DEVICE.type == "cuda" else ()


class Step:
    """One model with its optimiser on one random batch; every method is a part of its step, or all of it."""

    def __init__(
        self,
        direction: str,
        batch: int = BATCH,
        regions: int = REGIONS,
        features: int = FEATURES,
        width: int = WIDTH,
        words: tuple[int, int] = WORDS,
        vocabulary: int = VOCABULARY,
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self.direction = direction
        self.lengths = torch.randint(words[0], words[1] + 1, (batch,), generator=generator)
        self.features = torch.rand(batch, regions, features, generator=generator).to(DEVICE)
        tokens = torch.randint(1, vocabulary, (batch, int(self.lengths.max())), generator=generator)
        self.tokens = tokens.to(DEVICE)
        torch.manual_seed(0)
        self.model = SCAN(features, vocabulary, embed_size=width, direction=direction).to(DEVICE)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=2e-4)

    def images(self) -> None:
        """Embed the images, forward and backward."""
        self.model.embed_images(self.features).sum().backward()

    def captions(self) -> None:
        """Embed the captions, forward and backward."""
        self.model.embed_captions(self.tokens, self.lengths).sum().backward()

    def update(self) -> None:
        """Clip the gradients and take Adam's step."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        self.optimizer.step()

    def kit(self) -> None:
        """The kit's step."""
        self._whole(LOSS(self.model(self.features, self.tokens, self.lengths)))

    def loop(self) -> None:
        """The release's step."""
        images = self.model.embed_images(self.features)
        captions = self.model.embed_captions(self.tokens, self.lengths)
        self._whole(loop_loss(loop_scores(images, captions, self.lengths, self.direction)))

    def _whole(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        self.update()


def main() -> None:
    options = arguments(__doc__, full=True)
    if options.peak is not None:
        print(peak_beyond_now(Step(options.peak[0], int(options.peak[1])).kit))
        return
    batch = LARGE if options.full else BATCH
    rows, found, peaks, targets = [], {}, {}, []
    for direction in ("i2t", "t2i"):
        step = Step(direction, batch)
        calls = {"images": step.images, "captions": step.captions, "update": step.update, "kit": step.kit}
        calls |= {f"kit, {precision}": products(precision, DEVICE)(step.kit) for precision in PRECISIONS}
        seconds = take_turns(calls, rounds=1 if options.full else 3)
        if not options.full:
            seconds["loop"] = once(step.loop)
        seconds["attention and loss"] = seconds["kit"] - seconds["images"] - seconds["captions"] - seconds["update"]
        found[direction] = seconds
        peaks[direction] = peak_memory(direction, str(batch)) / 1e9
        parts = ("images", "captions", "attention and loss", "update")
        rows.append({
            "step": direction,
            "seconds": f"{seconds['kit']:.2f}",
            "loop / kit": f"{seconds['loop'] / seconds['kit']:.1f}" if "loop" in seconds else "–",
            **{f"{name}, %": f"{100 * seconds[name] / seconds['kit']:.0f}" for name in parts},
            "peak memory, GB": f"{peaks[direction]:.1f}",
        })  # fmt: skip
        if options.full:
            wanted = Target(f"{direction}: peak memory of {batch:,} pairs, GB", peaks[direction], MEMORY, at_most=True)
            targets.append(wanted)
    with style():
        figure, axis = plt.subplots(figsize=(7, 2.4))
        left = [0.0] * len(found)
        colors = ("#56B4E9", "#009E73", LOOK["kit"]["color"], "#E69F00")
        for name, color in zip(parts, colors, strict=True):
            widths = [100 * seconds[name] / seconds["kit"] for seconds in found.values()]
            axis.barh(list(found), widths, left=left, label=name, color=color)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        axis.set(xlabel="% of the kit's step", title="Where a training step's time goes")
        axis.invert_yaxis()
        figure.legend(loc="outside lower center", ncols=4)
    report(
        "training_full" if options.full else "training",
        f"A training step of SCAN, {batch:,} pairs, width 1024",
        rows,
        figure,
        "Bars of the share of a step that images, captions, attention with loss, and the update take.",
        "The captions' GRU goes word by word, in products too small for the machine; the rest is bounded by products.",
        targets,
        seconds=found,
        peak_gigabytes=peaks,
    )


if __name__ == "__main__":
    main()
