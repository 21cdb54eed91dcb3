"""The plain cross attention against the released code's recorded outputs and a naive loop."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.conftest import golden
from uwml_lib.models import attention_weights, cross_attention_scores
from uwml_lib.models.cross_attention import AGGREGATIONS, NORMALISATIONS
from uwml_lib.models.scan import DEFAULT_LAMBDA_LSE, DEFAULT_LAMBDA_SOFTMAX

DIRECTIONS = ("i2t", "t2i")
plain_scores = partial(cross_attention_scores, implementation="plain")


def forms(normalisations):
    def parametrized(test):
        for name, values in (
            ("direction", DIRECTIONS),
            ("normalisation", normalisations),
            ("aggregation", AGGREGATIONS),
        ):
            test = pytest.mark.parametrize(name, values)(test)
        return test

    return parametrized


every_form, some_forms = forms(NORMALISATIONS), forms(("clipped_l2norm", "softmax"))


def random_inputs(seed=0, n_images=4, n_captions=5, regions=6, words=7, dim=8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    images = F.normalize(torch.randn(n_images, regions, dim, generator=generator, dtype=dtype), dim=-1)
    captions = F.normalize(torch.randn(n_captions, words, dim, generator=generator, dtype=dtype), dim=-1)
    lengths = torch.randint(1, words + 1, (n_captions,), generator=generator)
    return images, captions, lengths


def naive_score(image, caption, direction, normalisation, aggregation):
    """One image (regions, dim) against one caption (its true words, dim), forming every attended vector."""
    queries, context = (image, caption) if direction == "i2t" else (caption, image)
    a = torch.stack([torch.stack([q @ c for c in context]) for q in queries])
    if normalisation == "softmax":
        a = torch.softmax(a, dim=0)
    if normalisation.startswith("clipped"):
        a = torch.where(a > 0, a, 0.1 * a)
    if "l2norm" in normalisation:
        a = a / (a.square().sum(dim=0, keepdim=True).sqrt() + 1e-8)
    relevance = []
    for weights, q in zip(a, queries, strict=True):
        attention = torch.softmax(DEFAULT_LAMBDA_SOFTMAX[direction] * weights, dim=0)
        relevance.append(F.cosine_similarity(q, sum(w * c for w, c in zip(attention, context, strict=True)), dim=0))
    r, lse = torch.stack(relevance), DEFAULT_LAMBDA_LSE[direction]
    return {"Mean": r.mean(), "Sum": r.sum(), "Max": r.max(), "LogSumExp": (lse * r).exp().sum().log() / lse}[
        aggregation
    ]


@every_form
def test_scores_of_the_released_code(direction, normalisation, aggregation):
    recorded = golden("cross_attention.npz")
    lengths = torch.tensor(recorded["lengths"])
    for suffix in ("", "_unnormalised"):
        images, captions = (torch.tensor(recorded[name + suffix]) for name in ("images", "captions"))
        scores = plain_scores(images, captions, lengths, direction, normalisation, aggregation)
        expected = recorded[f"{direction}.{normalisation}.{aggregation}{suffix}.scores"]
        np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("normalisation", ["clipped_l2norm", "softmax"])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_gradients_of_the_released_code(direction, normalisation, aggregation):
    recorded = golden("cross_attention.npz")
    images, captions = (torch.tensor(recorded[name], requires_grad=True) for name in ("images", "captions"))
    lengths = torch.tensor(recorded["lengths"])
    scores = plain_scores(images, captions, lengths, direction, normalisation, aggregation)
    (scores * torch.tensor(recorded["gradient_weights"])).sum().backward()
    for name, tensor in (("images", images), ("captions", captions)):
        expected = recorded[f"{direction}.{normalisation}.{aggregation}.grad_{name}"]
        np.testing.assert_allclose(tensor.grad, expected, atol=1e-4 * np.abs(expected).max())
    for caption, length in zip(captions.grad, lengths, strict=True):
        assert (caption[length:] == 0).all()


@every_form
def test_naive_loop(direction, normalisation, aggregation):
    images, captions, lengths = random_inputs()
    scores = plain_scores(images, captions, lengths, direction, normalisation, aggregation)
    expected = torch.stack([
        torch.stack([naive_score(image, caption[:length], direction, normalisation, aggregation)
                     for caption, length in zip(captions, lengths, strict=True)])
        for image in images
    ])  # fmt: skip
    torch.testing.assert_close(scores, expected, atol=1e-9, rtol=1e-9)


@some_forms
def test_padding_has_no_influence(direction, normalisation, aggregation):
    images, captions, lengths = random_inputs(seed=1)
    scores = plain_scores(images, captions, lengths, direction, normalisation, aggregation)
    padding = torch.arange(captions.shape[1]) >= lengths[:, None]
    for filler in (0.0, 1e6, torch.nan):
        padded = captions.masked_fill(padding[:, :, None], filler).requires_grad_()
        leaf = images.clone().requires_grad_()
        again = plain_scores(leaf, padded, lengths, direction, normalisation, aggregation)
        assert torch.equal(scores, again)
        again.sum().backward()
        assert (padded.grad[padding] == 0).all()
        assert padded.grad.isfinite().all()
        assert leaf.grad.isfinite().all()


@some_forms
def test_all_zero_inputs_stay_finite(direction, normalisation, aggregation):
    images, captions, lengths = random_inputs(seed=2, dtype=torch.float32)
    images[0], captions[0] = 0, 0
    images.requires_grad_()
    captions.requires_grad_()
    scores = plain_scores(images, captions, lengths, direction, normalisation, aggregation)
    scores.sum().backward()
    for tensor in (scores, images.grad, captions.grad):
        assert tensor.isfinite().all()


def test_one_item_alone_scores_as_in_the_batch():
    images, captions, lengths = random_inputs(seed=3)
    for direction in DIRECTIONS:
        scores = plain_scores(images, captions, lengths, direction)
        alone = plain_scores(images[2:3], captions[4:5], lengths[4:5], direction)
        torch.testing.assert_close(alone[0, 0], scores[2, 4])


def test_gradcheck():
    images, captions, lengths = random_inputs(seed=4, n_images=2, n_captions=2, regions=3, words=3, dim=4)
    for direction in DIRECTIONS:
        assert torch.autograd.gradcheck(
            lambda v, w, d=direction: plain_scores(v, w, lengths[:2], d),
            (images.requires_grad_(), captions.requires_grad_()),
        )


def test_attention_weights_are_those_of_the_scores():
    images, captions, _ = random_inputs(seed=5)
    weights = attention_weights(captions[0], images[0], lambda_softmax=9.0)
    assert weights.shape == (7, 6)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(7, dtype=torch.float64))
    relevance = F.cosine_similarity(captions[0], weights @ images[0], dim=-1).mean()
    score = plain_scores(images[:1], captions[:1], torch.tensor([7]), "t2i")
    torch.testing.assert_close(relevance, score[0, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"direction": "i2i"}, "direction: found 'i2i'"),
        ({"normalisation": "l1norm"}, "normalisation: found 'l1norm'"),
        ({"aggregation": "mean"}, "aggregation: found 'mean'"),
        ({"lengths": torch.tensor([1, 2, 3])}, "lengths: found shape"),
        ({"lengths": torch.tensor([1, 2, 3, 0, 1])}, "lengths: found 0 to 3"),
        ({"lengths": torch.tensor([1, 2, 3, 8, 1])}, "lengths: found 1 to 8"),
        ({"images": torch.zeros(2, 8)}, "images: found"),
        ({"captions": torch.zeros(5, 7, 9)}, "captions: found dim 9, expected 8"),
    ],
)
def test_bad_arguments(change, message):
    images, captions, lengths = random_inputs()
    with pytest.raises(ValueError, match=message):
        plain_scores(**{"images": images, "captions": captions, "lengths": lengths, **change})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_lower_precision(dtype, direction):
    images, captions, lengths = random_inputs(seed=6, dtype=torch.float32)
    expected = plain_scores(images, captions, lengths, direction)
    low = plain_scores(images.to(dtype), captions.to(dtype), lengths, direction)
    assert low.dtype == dtype
    torch.testing.assert_close(low.float(), expected, atol=0.02, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = plain_scores(images, captions, lengths, direction)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_padding_does_not_absorb_the_attention(direction):
    """Strongly negative similarities, unbounded: attention that went to padding would underflow at the true words."""
    images, captions, _ = random_inputs(seed=7, dtype=torch.float32)
    images, captions = images.abs() * 10, -captions.abs() * 10
    alone = plain_scores(images, captions[:, :3], torch.full((5,), 3), direction, "no_norm")
    padded = plain_scores(images, captions, torch.full((5,), 3), direction, "no_norm")
    torch.testing.assert_close(padded, alone)
