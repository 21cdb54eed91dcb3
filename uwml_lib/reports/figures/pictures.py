"""Figures of pictures: regions, results of a search, attention."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from uwml_lib.reports.figures.style import _styled


@_styled
def pictures_with_boxes(
    pictures: np.ndarray, boxes: np.ndarray, titles: Sequence[str] = (), columns: int = 4
) -> tuple[Figure, np.ndarray]:
    """Draw pictures (n, height, width, 3) with their region proposals (n, regions, 4), fractions x1, y1, x2, y2."""
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.5 * columns, 2.6 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture, picture_boxes in zip(axes.flat, pictures, boxes, strict=False):
        axis.imshow(picture)
        for box in picture_boxes:
            _rectangle(axis, box, picture.shape, edgecolor="white", linewidth=0.8, alpha=0.8)
    for axis, title in zip(axes.flat, titles, strict=False):
        axis.set_title(title, fontsize=9, fontweight="normal")
    return figure, boxes


@_styled
def filmstrips(films: Sequence[np.ndarray], titles: Sequence[str]) -> tuple[Figure, list[np.ndarray]]:
    """Draw films, each (frames, height, width, 3), frame beside frame in a row, with a title over each."""
    longest = max(map(len, films))
    figure, axes = plt.subplots(len(films), 1, figsize=(0.42 * longest, 0.85 * len(films)), squeeze=False)
    strips = [np.concatenate(list(film), axis=1) for film in films]
    for axis, strip, title in zip(axes.flat, strips, titles, strict=True):
        axis.imshow(strip)
        axis.set_xlim(-0.5, longest * strip.shape[0] - 0.5)
        axis.set_title(title, loc="left", fontsize=9, fontweight="normal")
        axis.axis("off")
    return figure, strips


@_styled
def retrieval_examples(
    examples: Sequence[dict[str, Any]], pictures: np.ndarray, columns: int = 3
) -> tuple[Figure, Sequence[dict[str, Any]]]:
    """Draw queries, their true image and the best results: each example has query, images, true, rank (from 1)."""
    width = 2 + columns
    figure, axes = plt.subplots(len(examples), width, figsize=(2.1 * width, 2.2 * len(examples)), squeeze=False)
    for row, example in zip(axes, examples, strict=True):
        row[0].text(0.5, 0.5, textwrap.fill(example["query"], 22), ha="center", va="center", fontsize=10)
        row[0].set_title(f"true image at rank {example['rank']}", fontsize=9, fontweight="normal")
        row[0].axis("off")
        shown = [("its image", example["true"])]
        shown += [(f"found {place}.", image) for place, image in enumerate(example["images"], 1)]
        for axis, (words, image) in zip(row[1:], shown, strict=False):
            axis.imshow(pictures[image])
            right = image == example["true"]
            axis.set_title(f"{words} {'✓' if right and words != 'its image' else ''}", fontsize=9, fontweight="normal")
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            for spine in axis.spines.values():
                spine.set(visible=True, linewidth=3 if right else 0.5, color="#009E73" if right else "#888888")
    return figure, examples


@_styled
def attention_by_word(
    picture: np.ndarray, boxes: np.ndarray, words: Sequence[str], weights: np.ndarray, columns: int = 4
) -> tuple[Figure, pd.DataFrame]:
    """Draw, word by word, the attention over regions: weights (words, regions), boxes (regions, 4) as fractions.

    The opacity and the width of a box grow with its weight; the number is the largest weight of the word.
    """
    rows = -(-len(words) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.4 * columns, 2.6 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, word, word_weights in zip(axes.flat, words, weights, strict=False):
        axis.imshow(picture, alpha=0.75)
        for box, weight in zip(boxes, word_weights, strict=True):
            strength = float(weight / word_weights.max())
            width = 0.4 + 2.6 * strength  # white on black, visible on digits of any colour
            _rectangle(axis, box, picture.shape, edgecolor="black", linewidth=width + 2, alpha=strength**2)
            _rectangle(axis, box, picture.shape, edgecolor="white", linewidth=width, alpha=strength**2)
        axis.set_title(f"{word}  ({word_weights.max():.2f})", fontsize=10, fontweight="normal")
    return figure, pd.DataFrame(weights, index=pd.Index(words, name="word"))


def _rectangle(axis: plt.Axes, box: np.ndarray, shape: tuple[int, ...], **style: Any) -> None:
    height, width = shape[:2]
    x1, y1, x2, y2 = box * (width, height, width, height)
    axis.add_patch(plt.Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, **style))
