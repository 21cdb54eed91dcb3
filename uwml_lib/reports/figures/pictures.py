"""Figures of pictures: regions, videos, results of a search, attention."""

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from uwml_lib.reports.figures import PAIR_LOOK, panels, styled

SMALL: dict[str, Any] = {"fontsize": 9, "fontweight": "normal", "parse_math": False}  # a $ of a caption is a $


@styled
def pictures_with_boxes(
    pictures: Sequence[np.ndarray] | np.ndarray, boxes: np.ndarray, titles: Sequence[str], numbered: bool = False
) -> tuple[Figure, np.ndarray]:
    """Draw pictures (n, height, width, 3), or of unequal sizes, with their regions: boxes (n, regions, 4).

    Boxes are x1, y1, x2, y2, in fractions or in pixels of the picture. numbered: larger, with each box's number, from
    0, in that corner of it which is farthest from other numbers.
    """
    size = 4.0 if numbered else 2.5
    figure, axes = panels(len(pictures), columns=4, width=size, height=size + 0.1, share=False)
    for axis, picture, picture_boxes, title in zip(axes, pictures, boxes, titles, strict=True):
        axis.imshow(picture)
        axis.set_title(title, **SMALL)
        axis.axis("off")
        taken: list[np.ndarray] = []
        for number, box in enumerate(_in_pixels(picture_boxes, picture)):
            _rectangle(axis, box, edgecolor="white", linewidth=0.8, alpha=0.8)
            if numbered:
                corners = [np.array(corner) for corner in itertools.product(box[::2], box[1::2])]
                corner = max(corners, key=lambda at: min((np.linalg.norm(at - other) for other in taken), default=0))
                taken.append(corner)
                paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
                axis.text(corner[0], corner[1], str(number), fontsize=7, ha="center", va="center", bbox=paper)
    return figure, boxes


@styled
def filmstrips(videos: Sequence[np.ndarray], titles: Sequence[str]) -> tuple[Figure, list[np.ndarray]]:
    """Draw videos, each (frames, height, width, 3), frame beside frame in a row, with a title over each."""
    strips = [np.concatenate(list(frames), axis=1) for frames in videos]
    figure, axes = panels(len(strips), columns=1, width=0.42 * max(map(len, videos)), height=0.85, share=False)
    for axis, strip, title in zip(axes, strips, titles, strict=True):
        axis.imshow(strip)
        axis.set_xlim(-0.5, max(strip.shape[1] for strip in strips) - 0.5)
        axis.set_title(title, loc="left", **SMALL)
        axis.axis("off")
    return figure, strips


@styled
def retrieval_examples(
    examples: Sequence[dict[str, Any]], pictures: np.ndarray, columns: int = 3
) -> tuple[Figure, Sequence[dict[str, Any]]]:
    """Draw examples (query, images, true, rank from 1): true image and best results; the true one has a thick frame."""
    places = 2 + columns
    figure, axes = panels(places * len(examples), places, width=2.1, height=2.2, share=False)
    for row, example in enumerate(examples):
        words, *images = axes[row * places : (row + 1) * places]
        words.text(0.5, 0.5, textwrap.fill(example["query"], 22), ha="center", va="center", parse_math=False)
        words.set_title(f"true image at rank {example['rank']}", **SMALL)
        words.axis("off")
        shown = {"its image": example["true"]}
        shown |= {f"found {rank}.": image for rank, image in enumerate(example["images"][:columns], 1)}
        for axis, (title, image) in zip(images, shown.items(), strict=False):
            right = image == example["true"]
            axis.imshow(pictures[image])
            axis.set_title(title, **SMALL)
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(visible=True, linewidth=3 if right else 0.5, color="#009E73" if right else "#888888")
    return figure, examples


@styled
def scored_pairs(
    scores: np.ndarray, pictures: Sequence[np.ndarray] | np.ndarray, captions: Sequence[str], margin: float = 0.2
) -> tuple[Figure, pd.DataFrame]:
    """Draw a small score matrix (n, n) with its pictures before the rows and its captions above the columns.

    Positives, on the diagonal, have a thick frame; each image's hardest negative has a dashed one, which is red where
    the image is informative: the negative scores above the positive less the margin. Returns a row for every image.
    """
    n = len(scores)
    negatives = np.where(np.eye(n, dtype=bool), -np.inf, scores)
    table = pd.DataFrame({"positive": scores.diagonal(), "hardest_negative": negatives.max(axis=1)})
    table["its_caption"], table.index.name = negatives.argmax(axis=1), "image"
    table["informative"] = table["hardest_negative"] + margin > table["positive"]
    figure, [axis] = panels(1, columns=1, width=1.25 * n + 2.2, height=0.8 * n + 1.6)
    lowest = min(0.0, scores.min())
    colours = axis.imshow(scores, cmap="Greys", vmin=lowest, vmax=1.6 * scores.max(), aspect="auto")  # pale below text
    axis.grid(visible=False)
    for row, column in np.ndindex(n, n):
        axis.text(column, row, f"{scores[row, column]:.2f}", ha="center", va="center")
    for row, (column, informative) in enumerate(zip(table["its_caption"], table["informative"], strict=True)):
        colour = PAIR_LOOK["negative"]["color"] if informative else "#777777"
        _frame(axis, row, row, color=PAIR_LOOK["positive"]["color"], linewidth=3)
        _frame(axis, column, row, color=colour, linewidth=2, linestyle="--")
        inside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "frameon": False, "annotation_clip": False}
        picture = OffsetImage(pictures[row], zoom=46 / len(pictures[row]))
        axis.add_artist(AnnotationBbox(picture, (-0.06, row), **inside))
    labels = [textwrap.fill(caption, 17) for caption in captions]
    axis.set_xticks(range(n), labels, fontsize=7, parse_math=False)
    axis.set(yticks=[], ylabel="images")
    axis.yaxis.labelpad = 58
    axis.xaxis.tick_top()
    axis.set_xlabel("captions", labelpad=6)
    axis.xaxis.set_label_position("top")
    axis.tick_params(length=0)
    figure.colorbar(colours, ax=axis, label="score").ax.set_ylim(lowest, scores.max())
    return figure, table


@styled
def attention_by_word(
    picture: np.ndarray, boxes: np.ndarray, words: Sequence[str], weights: np.ndarray
) -> tuple[Figure, pd.DataFrame]:
    """Draw, word by word, the attention over regions: weights (words, regions), boxes (regions, 4).

    Boxes are x1, y1, x2, y2, in fractions of the picture, or in its pixels, as `uwml pictures` writes them. The opacity
    and the width of a box grow with its weight; the number is the largest weight of the word.
    """
    figure, axes = panels(len(words), columns=4, width=2.4, height=2.6, share=False)
    for axis, word, word_weights in zip(axes, words, weights, strict=True):
        axis.imshow(picture, alpha=0.75)
        axis.axis("off")
        for box, weight in zip(_in_pixels(boxes, picture), word_weights, strict=True):
            strength = float(weight / word_weights.max())
            width = 0.4 + 2.6 * strength  # white on black, visible on digits of any colour
            _rectangle(axis, box, edgecolor="black", linewidth=width + 2, alpha=strength**2)
            _rectangle(axis, box, edgecolor="white", linewidth=width, alpha=strength**2)
        axis.set_title(f"{word}  ({word_weights.max():.2f})", **{**SMALL, "fontsize": 10})
    return figure, pd.DataFrame(weights, index=pd.Index(words, name="word"))


def _in_pixels(boxes: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Return boxes (regions, 4) in pixels of their picture; if none goes beyond its first pixel, they are fractions."""
    height, width = picture.shape[:2]
    return boxes if boxes.max(initial=0) > 1.5 else boxes * (width, height, width, height)


def _rectangle(axis: plt.Axes, box: np.ndarray, **style: Any) -> None:
    x1, y1, x2, y2 = box
    axis.add_patch(plt.Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, **style))


def _frame(axis: plt.Axes, column: int, row: int, **style: Any) -> None:
    """Put a frame into a cell of a matrix."""
    axis.add_patch(plt.Rectangle((column - 0.44, row - 0.44), 0.88, 0.88, fill=False, **style))
