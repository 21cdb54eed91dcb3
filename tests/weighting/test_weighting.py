"""Pair weights of any loss: automatic differentiation, the closed forms, and the frames drawn from them."""

import pytest
import torch
from hypothesis import given, settings

from tests.losses.test_losses import batches, every_form, with_margin
from uwml_lib.losses import LOSSES, InfoNCELoss, PolynomialLoss, TripletLoss
from uwml_lib.losses.base import ScoreMatrixLoss
from uwml_lib.weighting import (
    batch_scores,
    contributing,
    negative_mass,
    one_anchor,
    pair_weights,
    positives_and_hardest_negatives,
    weight_curve,
    weight_map,
)

SCORES = 2 * torch.rand(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1


@every_form
@given(batches())
def test_closed_form_is_automatic_differentiation(form, batch):
    scores, image_ids = batch
    for loss in (form(), with_margin(form, 0.0, reduction="sum")):
        expected = pair_weights(loss, scores, image_ids=image_ids)
        torch.testing.assert_close(loss.weights(scores, image_ids), expected, atol=1e-12, rtol=1e-12)


@every_form
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_closed_form_keeps_the_dtype(form, dtype):
    for weights in (form().weights(SCORES.to(dtype)), pair_weights(form(), SCORES.to(dtype))):
        assert weights.positive.dtype == weights.negative.dtype == dtype


def test_any_callable_and_its_signs():
    weights = pair_weights(lambda scores: (3 * scores[0, 1] - 2 * scores[0, 0] - scores[2, 1]).sum(), SCORES)
    assert weights.positive.tolist() == [2, 0, 0, 0, 0]
    assert weights.negative[0, 1] == 3
    assert weights.negative[2, 1] == -1  # pushed up, the wrong way
    assert weights.negative.count_nonzero() == 2


def test_the_diagonal_of_the_negative_weights_is_zero():
    for loss in (lambda scores: scores.sum(), lambda scores: scores.exp().sum(), lambda scores: (scores / 0).sum()):
        assert (pair_weights(loss, SCORES).negative.diagonal() == 0).all()


def test_arguments_reach_the_loss():
    image_ids = torch.tensor([0, 0, 1, 2, 3])
    loss = TripletLoss(negatives="all", margin=3)
    weights = pair_weights(loss, SCORES, image_ids=image_ids)
    assert weights.negative[0, 1] == weights.negative[1, 0] == 0
    assert pair_weights(loss, SCORES).negative[0, 1] == 2


def test_the_scores_are_left_alone():
    scores = SCORES.clone().requires_grad_()
    with torch.no_grad():
        pair_weights(PolynomialLoss(), scores)
    assert scores.grad is None
    assert torch.equal(scores, SCORES)


@pytest.mark.parametrize("constant", [torch.tensor(0.0), torch.zeros(1), torch.tensor(0.0, requires_grad=True)])
def test_a_constant_loss_gives_no_weight(constant):
    weights = pair_weights(lambda scores: constant, SCORES)
    assert weights.positive.shape == (5,)
    assert weights.negative.shape == (5, 5)
    assert not weights.positive.any()
    assert not weights.negative.any()


@pytest.mark.parametrize(
    ("loss", "scores", "message"),
    [
        (lambda scores: scores, SCORES, r"loss: returned shape \(5, 5\), expected a scalar"),
        (lambda scores: scores[0], SCORES, r"loss: returned shape \(5,\)"),
        (lambda scores: 0.5, SCORES, "loss: returned 0.5, expected a scalar"),
        (PolynomialLoss(), torch.ones(3, 3, dtype=torch.int64), r"scores: found torch.int64 \(3, 3\)"),
        (lambda scores: scores.sum(), torch.rand(4, 3), r"scores: found torch.float32 \(4, 3\)"),
    ],
)
def test_what_has_no_weights(loss, scores, message):
    with pytest.raises(ValueError, match=message):
        pair_weights(loss, scores)


def test_released_weights_of_one_anchor():
    weights = PolynomialLoss(reduction="sum").weights(one_anchor(0.6, 0.5))
    assert weights.positive.tolist() == pytest.approx([0.7 - 0.4 * 0.6, 0])
    assert weights.negative.flatten().tolist() == pytest.approx([0, 1.8 * 0.5 - 0.4, 0, 0])


# ------------------------------------------------------------------------------------------------ curves and batches


@pytest.mark.parametrize("loss", [PolynomialLoss(reduction="sum"), TripletLoss()])
def test_weight_curve(loss):
    similarities = torch.linspace(-0.9, 0.9, 19, dtype=torch.float64)
    negative = weight_curve(loss, one_anchor(0.5, 0.4), (0, 1), similarities)
    positive = weight_curve(loss, one_anchor(0.5, 0.4), (0, 0), similarities)
    assert negative["similarity"].tolist() == similarities.tolist()
    for frame in (negative, positive):
        assert frame["closed_form"].tolist() == pytest.approx(frame["weight"].tolist())
    triplet = isinstance(loss, TripletLoss)
    for n, weight in zip(negative["similarity"], negative["weight"], strict=True):
        if abs(n - 0.3) > 1e-6:  # not on the margin itself
            expected = 1.0 if triplet else 1.8 * n - 0.4
            assert weight == pytest.approx(expected if n > 0.3 else 0.0)
    for p, weight in zip(positive["similarity"], positive["weight"], strict=True):
        if abs(p - 0.6) > 1e-6:
            expected = 1.0 if triplet else 0.7 - 0.4 * p
            assert weight == pytest.approx(expected if p < 0.6 else 0.0)


def test_weight_curve_passes_arguments_on():
    image_ids = torch.tensor([0, 0, 1, 2, 3])
    curve = weight_curve(PolynomialLoss(), SCORES, (0, 1), torch.tensor([0.5, 0.9]), image_ids=image_ids)
    assert curve["weight"].tolist() == curve["closed_form"].tolist() == [0, 0]


def test_weight_curve_of_a_loss_without_a_closed_form():
    class Mine(ScoreMatrixLoss):
        def direction(self, scores, negative_mask):
            return scores.masked_fill(~negative_mask, 0).square().sum()

    for loss in (Mine(0.2, "sum", None), lambda scores: 2 * scores.square().sum()):
        frame = weight_curve(loss, one_anchor(0.5, 0.4), (0, 1), torch.tensor([-0.5, 0.25]))
        assert list(frame.columns) == ["similarity", "weight"]
        assert frame["weight"].tolist() == [-2.0, 1.0]


@pytest.mark.parametrize("captions_per_image", [1, 3])
@pytest.mark.parametrize(("batch_size", "batches", "size"), [(2, 2, 2), (5, 1, 5), (9, 1, 5)])
def test_batch_scores_are_squares_with_positives_on_the_diagonal(captions_per_image, batch_size, batches, size):
    image = torch.arange(5)[:, None]
    caption = torch.arange(5 * captions_per_image)
    cut = batch_scores(100 * image + caption, captions_per_image, batch_size)
    assert cut.shape == (batches * captions_per_image, size, size)
    images, captions = cut // 100, cut % 100
    assert (images == images[:, :, :1]).all()
    assert (captions == captions[:, :1]).all()
    assert (captions[:, 0] // captions_per_image == images[:, :, 0]).all()
    assert len(captions[:, 0].flatten().unique()) == captions[:, 0].numel()  # no caption twice


@pytest.mark.parametrize("name", LOSSES)
def test_a_map_is_made_of_the_weights_of_one_anchor(name):
    loss = LOSSES[name]()
    positives, negatives = torch.tensor([-0.3, 0.4, 0.75]), torch.tensor([-0.6, 0.35])
    frame = weight_map(loss, positives, negatives)
    assert len(frame) == 6
    for row in frame.itertuples():
        weights = pair_weights(loss, one_anchor(row.positive, row.negative))
        assert row.positive_weight == pytest.approx(float(weights.positive[0]), abs=1e-12)
        assert row.negative_weight == pytest.approx(float(weights.negative[0, 1]), abs=1e-12)


def test_the_mass_of_negatives_by_hand():
    scores = torch.tensor([[0.9, 0.8, 0.1], [0.2, 0.9, 0.85], [0.3, 0.0, 0.9]], dtype=torch.float64)
    frame = negative_mass(TripletLoss(0.2), scores[None])
    assert len(frame) == 6
    assert frame["share"].sum() == pytest.approx(1)
    used = frame[frame["share"] > 0].set_index("similarity")["share"].to_dict()
    assert used == pytest.approx({0.8: 0.5, 0.85: 0.5})  # each the hardest of its row and of its column
    assert frame.set_index("similarity")["rank"].to_dict() == {0.8: 1, 0.1: 2, 0.2: 2, 0.85: 1, 0.3: 1, 0.0: 2}


def test_positives_and_hardest_negatives():
    batches = torch.tensor([[[0.5, 0.1], [0.7, 0.2]], [[0.0, -1.0], [-2.0, -3.0]]])
    positives, hardest = positives_and_hardest_negatives(batches)
    assert positives.tolist() == pytest.approx([0.5, 0.2, 0.0, -3.0])
    assert hardest.tolist() == pytest.approx([0.1, 0.7, -1.0, -2.0])


def test_who_contributes_by_hand():
    scores = torch.tensor(
        [[0.5, 0.45, 0.4, 0.35], [0.6, 0.9, -1.0, 0.0], [-1.0, 0.0, 0.3, 0.2]], dtype=torch.float64
    )  # margin 0.2; the fourth caption belongs to nobody here
    for loss, images, captions in (
        (TripletLoss(), [1, 0, 1], [1, 0, 1]),
        (TripletLoss(negatives="all"), [3, 0, 1], [1, 0, 1]),
        (InfoNCELoss(), [3, 3, 3], [2, 2, 2]),
    ):
        assert contributing(loss, scores).tolist() == [images, captions]
    assert contributing(InfoNCELoss(), scores, above=0.4).tolist() == [[3, 0, 1], [1, 0, 1]]
    assert contributing(TripletLoss(negatives="all"), scores, image_ids=[1, 1, 2]).tolist() == [[2, 0, 1], [0, 0, 1]]


@every_form
@settings(max_examples=10)
@given(batches())
def test_who_contributes_by_the_closed_form(form, batch):
    scores, image_ids = batch
    loss = form()
    mask = loss.negative_mask(scores, image_ids)
    expected = [
        loss.direction_weights(*side).negative.count_nonzero(dim=1) for side in ((scores, mask), (scores.T, mask.T))
    ]
    found = contributing(loss, scores, image_ids=image_ids)
    assert found.shape == (2, len(scores))
    assert torch.equal(found, torch.stack(expected))


def test_what_cannot_be_counted():
    with pytest.raises(ValueError, match="loss: found <function"):
        contributing(lambda scores: scores.sum(), torch.rand(3, 3))
    with pytest.raises(ValueError, match="above: found 'a', expected a number"):
        contributing(TripletLoss(), torch.rand(3, 3), "a")
    with pytest.raises(ValueError, match=r"found torch.float32 \(0, 3\), expected floats \(N, M\) with M >= N >= 1"):
        pair_weights(TripletLoss(), torch.rand(0, 3))
