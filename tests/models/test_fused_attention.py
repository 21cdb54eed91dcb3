"""The fused cross attention against the plain one, the released code's outputs and finite differences."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, vmap
from torch.nn import functional as F

from tests.conftest import golden
from tests.models.test_cross_attention import random_inputs
from uwml_lib.models import cross_attention_scores, fused_attention
from uwml_lib.models.cross_attention import AGGREGATIONS
from uwml_lib.models.fused_attention import NORMALISATIONS

DIRECTIONS = ("i2t", "t2i")
plain_scores = partial(cross_attention_scores, implementation="plain")
fused_scores = partial(cross_attention_scores, implementation="fused")


def every_form(test):
    for name, values in (("direction", DIRECTIONS), ("normalisation", NORMALISATIONS), ("aggregation", AGGREGATIONS)):
        test = pytest.mark.parametrize(name, values)(test)
    return test


def both(images, captions, lengths, *options):
    """Scores and gradients of the plain and of the fused form, under the same random weights of the scores."""
    found = []
    weights = torch.randn(len(images), len(captions), generator=torch.Generator().manual_seed(9), dtype=images.dtype)
    for form in (plain_scores, fused_scores):
        inputs = [x.clone().requires_grad_() for x in (images, captions)]
        scores = form(*inputs, lengths, *options)
        (scores * weights).sum().backward()
        found.append((scores.detach(), *(x.grad for x in inputs)))
    return zip(*found, strict=True)


def assert_equal(pairs, scores=1e-5, gradients=1e-4):
    (plain, fused), *grads = pairs
    assert (plain - fused).abs().max() <= scores
    for plain, fused in grads:
        assert fused.isfinite().all()
        assert (plain - fused).abs().max() <= gradients * plain.abs().max()


@every_form
@given(seed=st.integers(0, 2**32 - 1), sizes=st.tuples(*[st.integers(1, 6)] * 4))
def test_equals_the_plain_form(direction, normalisation, aggregation, seed, sizes):
    n_images, n_captions, regions, words = sizes
    images, captions, lengths = random_inputs(seed, n_images, n_captions, regions, words, 8, torch.float32)
    captions = captions.masked_fill((torch.arange(words) >= lengths[:, None])[:, :, None], 0)
    # A negative mean of the similarities is where LeakyReLU and the norm matter most.
    assert_equal(both(images, captions - 0.1, lengths, direction, normalisation, aggregation))


@every_form
def test_blocks_change_nothing(direction, normalisation, aggregation, monkeypatch):
    images, captions, lengths = random_inputs(3, n_images=7, n_captions=9, words=5)
    options = (images, captions, lengths, direction, normalisation, aggregation)
    whole = [fused for _, fused in both(*options)]
    for size in (1, 60, 500):
        monkeypatch.setattr(fused_attention, "BLOCK", size)
        for one, other in zip(whole, (fused for _, fused in both(*options)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_size_of_a_training_step(direction):
    images, captions, lengths = random_inputs(5, 24, 24, 36, 20, 64, torch.float32)
    assert_equal(both(images, captions, lengths, direction))


@every_form
def test_scores_and_gradients_of_the_released_code(direction, normalisation, aggregation):
    recorded = golden("cross_attention.npz")
    lengths = torch.tensor(recorded["lengths"])
    name = f"{direction}.{normalisation}.{aggregation}"
    for suffix in ("", "_unnormalised"):
        images, captions = (
            torch.tensor(recorded[kind + suffix], requires_grad=True) for kind in ("images", "captions")
        )
        scores = fused_scores(images, captions, lengths, direction, normalisation, aggregation)
        np.testing.assert_allclose(scores.detach(), recorded[f"{name}{suffix}.scores"], atol=1e-5, rtol=1e-5)
        if f"{name}.grad_images" in recorded and not suffix:
            (scores * torch.tensor(recorded["gradient_weights"])).sum().backward()
            for kind, tensor in (("images", images), ("captions", captions)):
                expected = recorded[f"{name}.grad_{kind}"]
                np.testing.assert_allclose(tensor.grad, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gradcheck(direction, normalisation):
    images, captions, lengths = random_inputs(2, n_images=2, n_captions=3, regions=3, words=4, dim=3)
    inputs = (0.7 * images.requires_grad_(), 1.3 * captions.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, y: fused_scores(x, y, lengths, direction, normalisation), inputs)


@every_form
def test_all_zero_inputs_stay_finite(direction, normalisation, aggregation):
    images, captions, lengths = random_inputs()
    images[0], captions[1], captions[2, 0] = 0, 0, 0
    images[1, 2] = 0
    scores, *gradients = both(images, captions, lengths, direction, normalisation, aggregation)
    torch.testing.assert_close(*scores)
    # An all-zero query has no direction: its gradient is huge in either form, and not the same.
    assert all(fused.isfinite().all() for _, fused in gradients)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_padding_has_no_influence_and_no_gradient(direction):
    images, captions, lengths = random_inputs()
    other = captions.clone()
    for row, length in zip(other, lengths, strict=True):
        row[length:] = torch.nan
    other.requires_grad_()
    scores = fused_scores(images, other, lengths, direction)
    assert torch.equal(scores, fused_scores(images, captions, lengths, direction))
    scores.sum().backward()
    for gradient, length in zip(other.grad, lengths, strict=True):
        assert (gradient[length:] == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_lower_precision(dtype, direction):
    images, captions, lengths = random_inputs(dtype=torch.float32)
    exact = fused_scores(images, captions, lengths, direction)
    low = fused_scores(images.to(dtype), captions.to(dtype), lengths, direction)
    assert low.dtype == dtype
    assert (low - exact).abs().max() < 0.02
    for mixed in (captions, captions.to(torch.bfloat16)):
        images.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            scores = fused_scores(images, mixed, lengths, direction)
        scores.float().sum().backward()
        assert (scores - exact).abs().max() < 0.02
        assert images.grad.dtype == torch.float32
        assert images.grad.isfinite().all()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_only_the_products_with_embeddings_are_in_lower_precision(direction):
    """Small whole numbers have exact products in bfloat16: what follows them must be as exact as in float32."""
    generator = torch.Generator().manual_seed(0)
    images, captions = (torch.randint(-1, 2, (n, 5, 8), generator=generator).float() for n in (4, 6))
    lengths = torch.tensor([5, 2, 4, 5, 3, 1])
    images.requires_grad_()
    exact = fused_scores(images, captions, lengths, direction)
    with torch.autocast("cpu", torch.bfloat16):
        found = fused_scores(images, captions, lengths, direction)
        (within,) = torch.autograd.grad(found.sum(), images, retain_graph=True)
    assert (found - exact).abs().max() <= 1e-6
    (expected,), (gradient,) = (torch.autograd.grad(scores.sum(), images) for scores in (exact, found))
    assert torch.equal(gradient, within)  # whether or not the backward pass is called within the autocast
    assert 1e-4 < (gradient - expected).norm() / expected.norm() < 1e-2  # its products are in bfloat16 too


def test_a_backward_pass_can_be_repeated_once_per_graph_kept():
    images, captions, lengths = random_inputs()
    images.requires_grad_()
    total = fused_scores(images, captions, lengths).sum()
    first, second = (torch.autograd.grad(total, images, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="differentiated once; take implementation='plain'"):
        torch.autograd.grad(total, images, create_graph=True)


def test_normalised_inputs_score_as_cosines():
    images, captions, lengths = random_inputs()
    scores = fused_scores(images, captions, lengths)
    assert (scores.abs() <= 1 + 1e-12).all()
    torch.testing.assert_close(scores, fused_scores(images, F.normalize(7 * captions, dim=-1), lengths))


# ------------------------------------------------------------------------------------------------ which form is taken


@every_form
def test_by_default_it_is_the_fused_form(direction, normalisation, aggregation):
    inputs = random_inputs(dtype=torch.float32)
    scores = cross_attention_scores(*inputs, direction, normalisation, aggregation)
    assert torch.equal(scores, fused_scores(*inputs, direction, normalisation, aggregation))
    plain = plain_scores(*inputs, direction, normalisation, aggregation)
    assert 0 < (scores - plain).abs().max() <= 1e-5


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("normalisation", [*NORMALISATIONS, "softmax"])
def test_compiled_it_is_the_plain_form(direction, normalisation):
    """As a single graph, which the fused form could not be."""
    inputs = random_inputs()
    torch.compiler.reset()
    compiled = torch.compile(cross_attention_scores, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(*inputs, direction, normalisation), plain_scores(*inputs, direction, normalisation))


def test_under_a_functional_transform_it_is_the_plain_form():
    images, captions, _ = random_inputs()
    lengths = torch.full((5,), 7)
    alone = vmap(lambda caption: cross_attention_scores(images, caption[None], lengths[:1]))(captions)
    torch.testing.assert_close(alone[..., 0].T, plain_scores(images, captions, lengths))
    gradient = grad(lambda x: cross_attention_scores(x, captions, lengths).sum())(images)
    images.requires_grad_()
    torch.testing.assert_close(gradient, *torch.autograd.grad(plain_scores(images, captions, lengths).sum(), images))


@pytest.mark.parametrize("normalisation", ["softmax", "no_norm", "clipped"])
def test_of_another_normalisation_it_is_the_plain_form(normalisation):
    inputs = random_inputs()
    scores = cross_attention_scores(*inputs, normalisation=normalisation)
    assert torch.equal(scores, plain_scores(*inputs, normalisation=normalisation))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("lambda_softmax", [30.0, 36.0, 50.0, 200.0])
def test_a_sharp_attention_overflows_nowhere(direction, lambda_softmax):
    """One query that likes every vector of its context is the worst case: all logits are lambda."""
    vector = F.normalize(torch.ones(1, 1, 8), dim=-1)
    many = vector + 1e-3 * torch.randn(1, 60, 8, generator=torch.Generator().manual_seed(0))
    images, captions = (vector, many) if direction == "i2t" else (many, vector)
    inputs = [x.clone().requires_grad_() for x in (images, captions)]
    lengths = torch.tensor([captions.shape[1]])
    scores = cross_attention_scores(*inputs, lengths, direction, lambda_softmax=lambda_softmax)
    scores.sum().backward()
    doubled = plain_scores(images.double(), captions.double(), lengths, direction, lambda_softmax=lambda_softmax)
    torch.testing.assert_close(scores.double(), doubled, rtol=0, atol=1e-5)
    assert all(x.grad.isfinite().all() for x in inputs)


def test_fused_where_it_cannot_be():
    images, captions, lengths = random_inputs()
    with pytest.raises(ValueError, match="found normalisation 'no_norm', expected one of clipped_l2norm, l2norm"):
        fused_scores(images, captions, lengths, normalisation="no_norm")
    with pytest.raises(ValueError, match="found lambda_softmax 36.5, expected at most 36"):
        fused_scores(images, captions, lengths, lambda_softmax=36.5)
    with pytest.raises(ValueError, match="found lengths on meta, expected them on the CPU"):
        fused_scores(images, captions, lengths.to("meta"))
    with pytest.raises(ValueError, match="found vmap or another functional transform at work, expected none"):
        vmap(lambda caption: fused_scores(images, caption[None], lengths[:1]))(captions)
    torch.compiler.reset()
    with pytest.raises(ValueError, match="found torch.compile at work, expected none"):
        torch.compile(fused_scores, backend="aot_eager")(images, captions, lengths)
    with pytest.raises(ValueError, match="implementation: found 'quick', expected one of auto, plain, fused"):
        cross_attention_scores(images, captions, lengths, implementation="quick")
    with pytest.raises(ValueError, match="lengths: found"):
        fused_scores(images, captions, lengths + 100)
