"""What only a graphics card can show: no waiting in a step, the accuracy of faster products, graphs."""

from functools import partial

import pytest
import torch

from tests.models.test_cross_attention import random_inputs
from uwml_lib.losses import InfoNCELoss, PolynomialLoss
from uwml_lib.models import SCAN, cross_attention_scores

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DIRECTIONS = ("i2t", "t2i")
LOSS = PolynomialLoss(check_finite=False)
plain_scores = partial(cross_attention_scores, implementation="plain")
fused_scores = partial(cross_attention_scores, implementation="fused")


def gradients(form, images, captions, lengths, direction):
    """Scores and the gradients of the loss on them."""
    inputs = [x.clone().requires_grad_() for x in (images, captions)]
    scores = form(*inputs, lengths, direction)
    return scores.detach(), *torch.autograd.grad(LOSS(scores.float()), inputs)


@pytest.fixture
def inputs():
    """Images and captions on the card, lengths not; unit vectors."""
    images, captions, lengths = random_inputs(5, 24, 24, 36, 20, 64, torch.float32)
    normalize = torch.nn.functional.normalize
    return normalize(images, dim=-1).cuda(), normalize(captions, dim=-1).cuda(), lengths


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_training_step_waits_for_nothing(direction):
    model = SCAN(12, 30, embed_size=16, word_dim=8, direction=direction).cuda()
    optimizer = torch.optim.Adam(model.parameters())
    features, tokens = torch.rand(6, 5, 12, device="cuda"), torch.randint(1, 30, (6, 9), device="cuda")
    lengths, image_ids = torch.tensor([9, 4, 7, 2, 9, 5]), torch.arange(6, device="cuda")
    for mode in ("default", "error"):  # what is made once may wait
        torch.cuda.set_sync_debug_mode(mode)
        try:
            optimizer.zero_grad()
            LOSS(model(features, tokens, lengths), image_ids).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_card_computes_what_the_processor_does(direction, inputs):
    images, captions, lengths = inputs
    scores, *expected = gradients(plain_scores, images.cpu(), captions.cpu(), lengths, direction)
    for form in (plain_scores, fused_scores):
        found, *others = gradients(form, *inputs, direction)
        assert (found.cpu() - scores).abs().max() <= 1e-5
        for gradient, other in zip(expected, others, strict=True):
            assert (other.cpu() - gradient).abs().max() <= 1e-4 * gradient.abs().max()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("products", "tolerance"), [("tf32", 2e-3), ("bfloat16", 0.02)])
def test_accuracy_of_faster_products(direction, products, tolerance, inputs, monkeypatch):
    exact, *expected = gradients(fused_scores, *inputs, direction)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", products == "tf32")
    with torch.autocast("cuda", torch.bfloat16, enabled=products == "bfloat16"):
        found, *others = gradients(fused_scores, *inputs, direction)
    assert (found.float() - exact).abs().max() <= tolerance
    for gradient, other in zip(expected, others, strict=True):
        assert (other - gradient).norm() <= 5 * tolerance * gradient.norm()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_plain_form_can_be_a_graph(direction, inputs):
    """With the lengths on the card it is the form by default; the fused one reads them on the host and cannot."""
    images, captions, lengths = (x.cuda() for x in inputs)
    captions.requires_grad_()

    def step():
        return torch.autograd.grad(LOSS(cross_attention_scores(images, captions, lengths, direction)), captions)[0]

    expected = step()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
        with pytest.raises(ValueError, match="found the capture of a CUDA graph, expected none"):
            fused_scores(*inputs, direction)
    graph.replay()
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="found lengths on cuda:0, expected them on the CPU"):
        fused_scores(images, captions, lengths, direction)


@pytest.mark.parametrize("loss", [LOSS, LOSS.dense(), InfoNCELoss(check_finite=False)])
def test_a_loss_from_embeddings_is_that_of_the_scores_and_waits_for_nothing(loss):
    generator = torch.Generator().manual_seed(0)
    images, captions = (torch.randn(n, 32, generator=generator).double().cuda() for n in (1100, 1300))
    inputs = [x.requires_grad_() for x in (images, captions)]
    normalize = torch.nn.functional.normalize
    image_ids = torch.arange(1100, device="cuda") // 2
    expected = torch.autograd.grad(loss(normalize(images) @ normalize(captions).T, image_ids), inputs)
    for mode in ("default", "error"):  # what is made once may wait
        torch.cuda.set_sync_debug_mode(mode)
        try:
            found = torch.autograd.grad(loss.from_embeddings(images, captions, image_ids), inputs)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found, expected)
