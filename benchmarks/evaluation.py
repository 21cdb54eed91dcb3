"""Scoring 1,000 images with 5,000 captions, as evaluation does it, against the loop of the release.

The loop is timed on 128 images and 640 captions and scaled by the number of pairs. `--full` takes 5,000 images and
25,000 captions, as MSCOCO has. On a graphics card, with coarser products too. `python benchmarks/evaluation.py`
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from loops import loop_scores
from measuring import (
    DEVICE,
    LOOK,
    Call,
    Target,
    arguments,
    once,
    peak_beyond_now,
    peak_memory,
    plain_logarithm,
    report,
    style,
    take_turns,
)
from step import REGIONS, WIDTH, WORDS
from torch import Tensor, nn
from torch.nn.functional import normalize

from uwml_lib.config import Precision
from uwml_lib.datasets.batches import EncodedCaptions, pad_captions
from uwml_lib.evaluation import retrieval_metrics, score_matrix
from uwml_lib.models import cross_attention_scores

CAPTIONS, SAMPLE, VOCABULARY = 5, 128, 2000
FASTER = {"i2t": 15, "t2i": 8}  # than the loop, wanted
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bf16") if DEVICE.type == "cuda" else ("float32",)


class Embedded(nn.Module):
    """A model whose images come embedded and whose captions are looked up, so that scoring alone is measured."""

    def __init__(self, direction: str, width: int = WIDTH) -> None:
        super().__init__()
        table = torch.randn(VOCABULARY, width, generator=torch.Generator().manual_seed(1))
        self.words = nn.Embedding.from_pretrained(normalize(table, dim=-1))
        self.direction = direction

    def embed_images(self, features: Tensor, counts: None) -> Tensor:
        return features

    def embed_captions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self.words(tokens)

    def scores(self, images: Tensor, captions: Tensor, lengths: Tensor) -> Tensor:
        return cross_attention_scores(images, captions, lengths, self.direction, implementation="fused")


class Split:
    """What `score_matrix` needs of a data set: random regions, drawn when asked for, and random words."""

    captions_per_image = CAPTIONS

    def __init__(self, images: int, regions: int = REGIONS, width: int = WIDTH) -> None:
        generator = np.random.default_rng(0)
        self.features, self.shape = range(images), (regions, width)
        lengths = generator.integers(WORDS[0], WORDS[1] + 1, images * CAPTIONS)
        self.encoded = EncodedCaptions(generator.integers(VOCABULARY, size=length).tolist() for length in lengths)
        self.caption_lengths = self.encoded.lengths

    def __len__(self) -> int:
        return len(self.encoded)

    def images(self, start: int, stop: int) -> Tensor:
        generator = torch.Generator().manual_seed(start)
        return normalize(torch.randn(stop - start, *self.shape, generator=generator), dim=-1)

    def counts(self, numbers: range) -> None:
        """All images are full."""

    def read_captions(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        return pad_captions([self.encoded[number] for number in numbers])


@torch.no_grad()
def loop(model: Embedded, split: Split, sample: int = SAMPLE) -> None:
    """Score a sample as the release works."""
    tokens, lengths = pad_captions(split.encoded[: sample * CAPTIONS])
    loop_scores(split.images(0, sample).to(DEVICE), model.words(tokens.to(DEVICE)), lengths, model.direction)


@torch.no_grad()
def floor(model: Embedded, split: Split, sample: int = SAMPLE) -> Call:
    """Return the bare products of a sample's regions and words, as a call."""
    words = torch.cat([torch.tensor(caption) for caption in split.encoded[: sample * CAPTIONS]])
    regions, embedded = split.images(0, sample).to(DEVICE).flatten(0, 1), model.words(words.to(DEVICE))
    return lambda: regions @ embedded.T


def main() -> None:
    options = arguments(__doc__, full=True)
    split = Split(5000 if options.full else 1000)
    if options.peak is not None:
        print(peak_beyond_now(lambda: score_matrix(Embedded(*options.peak).to(DEVICE), split)))
        return
    pairs, sample = len(split.features) * len(split), SAMPLE * SAMPLE * CAPTIONS
    rows, found, targets = [], {}, []
    for direction in ("i2t", "t2i"):
        model = Embedded(direction).to(DEVICE)
        seconds = {"loop": once(lambda model=model: loop(model, split)) * pairs / sample}
        seconds["floor"] = take_turns({"floor": floor(model, split)}, rounds=3)["floor"] * pairs / sample
        for precision in PRECISIONS:
            scores: list[Tensor] = []
            kit = "kit" if precision == "float32" else f"kit, {precision}"
            seconds[kit] = once(lambda: scores.append(score_matrix(model, split, precision=precision)))  # noqa: B023
            seconds["ranking"] = once(lambda: retrieval_metrics(scores[0]))  # noqa: B023
            rows.append({
                "scoring": direction,
                "products": precision,
                "kit, seconds": f"{seconds[kit]:.1f}",
                "ranking, seconds": f"{seconds['ranking']:.2f}",
                "kit / floor (extrapolated)": f"{seconds[kit] / seconds['floor']:.2f}",
                "loop (extrapolated) / kit": f"{seconds['loop'] / seconds[kit]:.1f}",
                "peak memory, MB": "–" if options.full else f"{peak_memory(direction) / 1e6:.0f}",
            })  # fmt: skip
        found[direction] = seconds
        targets.append(Target(f"{direction}: loop / kit", seconds["loop"] / seconds["kit"], FASTER[direction]))
    least = min(seconds["floor"] / seconds["kit"] for seconds in found.values())
    beyond = " and ".join(f"{values['loop'] / values['floor']:.0f} ({name})" for name, values in found.items())
    with style():
        figure, axis = plt.subplots(figsize=(7, 2.6))
        for offset, name in ((-0.25, "floor"), (0, "kit"), (0.25, "loop")):
            values = [seconds[name] for seconds in found.values()]
            label = name if name == "kit" else f"{name}, extrapolated"
            bars = axis.barh([0 + offset, 1 + offset], values, height=0.23, label=label, color=LOOK[name]["color"])
            axis.bar_label(bars, [f"{value:.3g}" for value in values], padding=3)
        axis.set(yticks=[0, 1], yticklabels=list(found), xlabel="seconds", title="Scoring a split")
        plain_logarithm(axis)
        axis.margins(x=0.15)
        axis.invert_yaxis()
        figure.legend(loc="outside lower center", ncols=3)
    report(
        "evaluation_full" if options.full else "evaluation",
        f"Scoring {len(split.features):,} images with {len(split):,} captions, width {WIDTH}",
        rows,
        figure,
        "Bars of seconds, logarithmic, for each direction: floor, kit and loop.",
        f"The matrix products take at least {least:.0%} of the kit's time, the rest is what the attention does with "
        f"them. With the products alone the kit would be {beyond} times as fast as the loop.",
        targets,
        seconds=found,
        extrapolated_from=sample,
    )


if __name__ == "__main__":
    main()
