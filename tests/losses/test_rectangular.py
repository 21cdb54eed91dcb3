"""More captions than images: the further ones are negatives of images and nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.losses.oracles import naive_loss
from tests.losses.test_losses import batches, every_form, value_and_gradient
from uwml_lib.losses import LOSSES, PolynomialLoss, TripletLoss
from uwml_lib.losses.negatives import Negatives
from uwml_lib.weighting import pair_weights


@st.composite
def wide_batches(draw):
    """Scores (N, M), M >= N, and all that says who is a negative, each at times."""
    scores, image_ids = draw(batches())
    n, further = len(scores), draw(st.integers(0, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    beyond = torch.randint(-10, 11, (n, further), generator=generator) / 10
    scores = torch.cat([scores, beyond.double()], dim=1)
    caption_ids = torch.randint(0, 2 * n, (n + further,), generator=generator) if draw(st.booleans()) else None
    negatives = torch.rand(n, n + further, generator=generator) < 0.7 if draw(st.booleans()) else None
    return scores, {"image_ids": image_ids, "caption_ids": caption_ids, "negatives": negatives}


@every_form
@settings(max_examples=6)
@given(wide_batches())
def test_naive_loop(form, batch):
    scores, who = batch
    for loss in (form(), form().dense()):
        value, gradient = value_and_gradient(loss, scores, **who)
        assert value.item() == pytest.approx(naive_loss(loss, scores, **who), rel=1e-12, abs=1e-12)
        expected = pair_weights(loss, scores, **who)
        assert expected.negative.shape == scores.shape
        torch.testing.assert_close(loss.weights(scores, **who), expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient.clone().fill_diagonal_(0), expected.negative)


@settings(max_examples=30)
@given(wide_batches())
def test_statistics(batch):
    scores, who = batch
    n = len(scores)
    loss = PolynomialLoss()
    mask = loss.negative_mask(scores, **who)
    hardest = [
        (max((s for s, allowed in zip(row, may_be, strict=True) if allowed), default=None), scores[i, i].item())
        for rows, masks in ((scores, mask), (scores[:, :n].T, mask[:, :n].T))
        for i, (row, may_be) in enumerate(zip(rows.tolist(), masks.tolist(), strict=True))
    ]
    found = {name: value.item() for name, value in loss.statistics(scores, **who).items()}
    there = [score for score, _ in hardest if score is not None]
    informative = [score is not None and score + 0.2 > p for score, p in hardest]
    assert found["informative_share"] == pytest.approx(sum(informative) / (2 * n))
    assert found["positive_score"] == pytest.approx(scores.diagonal().mean().item())
    expected = sum(there) / len(there) if there else float("nan")
    assert found["hardest_negative_score"] == pytest.approx(expected, nan_ok=True)


def test_a_queue_by_hand():
    scores = torch.tensor([[0.5, 0.1, 0.45], [0.2, 0.6, -1.0]], dtype=torch.float64)
    # The third column informs the first image alone; no caption has a negative within 0.2.
    value, gradient = value_and_gradient(TripletLoss(reduction="mean"), scores)
    assert value.item() == pytest.approx((0.2 + 0.45 - 0.5) / 2)
    assert gradient.tolist() == [[-0.5, 0, 0.5], [0, 0, 0]]
    assert TripletLoss()(scores, caption_ids=[3, 4, 3]) == 0  # of the same image, by its own number
    assert TripletLoss()(scores, image_ids=[3, 4]) > 0  # which images the further columns have, these do not say


def test_the_mask_of_some_rows_and_columns_is_a_part_of_the_whole():
    some, columns = torch.tensor([3, 1]), torch.tensor([0, 6, 1])
    ids, more = torch.tensor([0, 0, 5, 5, 0]), torch.tensor([1, 2, 3, 4, 5, 1, 0])
    allowed = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) < 0.5
    for who in ((None, None, None), (ids, None, None), (None, more, None), (ids, more, allowed)):
        negatives = Negatives(5, 7, torch.device("cpu"), *who)
        whole = negatives.mask()
        assert whole.shape == (5, 7)
        assert not whole.diagonal().any()
        assert whole[:, 5:].all() or who[1] is not None
        assert torch.equal(negatives.mask(some), whole[some])
        assert torch.equal(negatives.mask(slice(1, 4)), whole[1:4])
        assert torch.equal(negatives.mask(None, columns), whole[:, columns])
        scores = torch.zeros(3, 7)
        negatives.hide_others(scores, slice(1, 4), slice(0, 7))
        assert torch.equal(scores == 0, whole[1:4])


@pytest.mark.parametrize("name", LOSSES)
def test_what_does_not_fit(name):
    loss, scores = LOSSES[name](), torch.rand(2, 3)
    for who, message in (
        ({"image_ids": [1, 2, 3]}, r"image_ids: found shape \(3,\), expected \(2,\)"),
        ({"caption_ids": [1, 2]}, r"caption_ids: found shape \(2,\), expected \(3,\)"),
        ({"negatives": torch.ones(2, 2, dtype=torch.bool)}, r"of shape \(2, 2\), expected booleans \(2, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(scores, **who)
