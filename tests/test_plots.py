"""Figures: the data they drew, not their pixels."""

import matplotlib as mpl
import numpy as np
import pytest
import torch

from uwml_lib import plots
from uwml_lib.losses import PolynomialLoss, TripletLoss
from uwml_lib.weighting import one_anchor, weight_curve

mpl.use("agg")


def curves(loss):
    similarities = torch.linspace(-1, 0.99, 50, dtype=torch.float64)
    return {
        "positive": weight_curve(loss, one_anchor(0.0, 1.0), (0, 0), similarities),
        "negative": weight_curve(loss, one_anchor(-1.0, 0.0), (0, 1), similarities),
    }


def test_weight_curves_are_those_of_the_equations():
    drawn = {"triplet": curves(TripletLoss()), "polynomial": curves(PolynomialLoss(reduction="sum"))}
    figure, data = plots.weight_curves(drawn, {"positive": np.ones(3), "negative": np.zeros(3)})
    positive, negative = data["polynomial"]["positive"], data["polynomial"]["negative"]
    np.testing.assert_allclose(positive["weight"], 0.7 - 0.4 * positive["similarity"])
    high = negative[negative["similarity"] > 0.35]
    np.testing.assert_allclose(high["weight"], 1.8 * high["similarity"] - 0.4)
    dead = negative[negative["similarity"].between(0.0956, 0.3488)]
    assert len(dead) > 3
    assert (dead["weight"] == 0).all()
    assert (negative[negative["similarity"] < 0.09]["weight"] < 0).all()
    assert (data["triplet"]["negative"]["weight"] == 1).all()
    assert figure.axes[0].get_xlabel() == "similarity of the pair"
    line = figure.axes[1].lines[2]  # polynomial: the line of automatic differentiation
    np.testing.assert_allclose(line.get_ydata(), negative["weight"])


def test_caption_lengths_are_shares():
    _, shares = plots.caption_lengths({"train": [5, 5, 6, 7], "dev": [5, 9]})
    assert shares["train"].to_dict() == {5: 50.0, 6: 25.0, 7: 25.0, 9: 0.0}
    assert shares.sum().tolist() == [100.0, 100.0]


def test_attention_table_keeps_the_words():
    weights = np.array([[0.1, 0.9], [0.5, 0.5], [0.3, 0.7]])
    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    figure, table = plots.attention_by_word(np.zeros((8, 8, 3), np.uint8), boxes, ["a", "red", "a"], weights)
    assert list(table.index) == ["a", "red", "a"]
    strengths = [patch.get_alpha() for patch in figure.axes[0].patches]
    assert strengths == [pytest.approx((1 / 9) ** 2)] * 2 + [1.0] * 2  # each box has a dark edge


def test_show_keeps_the_alternative_text_and_the_file(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "display", lambda figure, metadata: shown.append(metadata))
    figure, _ = plots.caption_lengths({"train": [5]})
    plots.show(figure, "what it shows", tmp_path / "figures" / "figure.png")
    assert shown == [{"image/png": {"alt": "what it shows"}}]
    assert (tmp_path / "figures" / "figure.png").stat().st_size > 1000
