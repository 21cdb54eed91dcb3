"""Every model keeps the contract, and each of the smaller ones is what a loop over its equation gives."""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.tiny import write_tiny
from uwml_lib.checkpoints import load_model
from uwml_lib.config import ExperimentConfig
from uwml_lib.losses import PolynomialLoss
from uwml_lib.models import BFAN, MODELS, VSE, VSEInfinity, build_model, cross_attention_scores
from uwml_lib.models.frozen import FrozenEmbeddings
from uwml_lib.models.vse_infinity import GPO, positional_encoding
from uwml_lib.training import train

FEATURES, VOCABULARY, WIDTH = 7, 20, 8
LENGTHS = torch.tensor([6, 2, 4, 6, 1])


def batch(n: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images of four regions and captions of ragged length, padded with zeros."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(n, 4, FEATURES, generator=generator)
    tokens = torch.randint(1, VOCABULARY, (n, 6), generator=generator)
    return features, tokens.masked_fill(torch.arange(6) >= LENGTHS[:n, None], 0), LENGTHS[:n]


@pytest.fixture(params=list(MODELS))
def model(request):
    torch.manual_seed(1)
    return build_model(ExperimentConfig(model=request.param, embed_size=WIDTH, word_dim=6), FEATURES, VOCABULARY)


def test_scores_are_cosines_of_every_pair(model):
    features, tokens, lengths = batch()
    scores = model(features, tokens, lengths)
    assert scores.shape == (5, 5)
    assert (scores.abs() <= 1 + 1e-6).all()
    images, captions = model.embed_images(features[:2]), model.embed_captions(tokens[2:, :6], lengths[2:])
    torch.testing.assert_close(model.scores(images, captions, lengths[2:]), scores[:2, 2:], atol=1e-6, rtol=1e-5)


def test_padding_has_no_influence(model):
    features, tokens, lengths = batch()
    longer = F.pad(tokens, (0, 3)).masked_fill(torch.arange(9) >= lengths[:, None], 5)
    torch.testing.assert_close(model(features, longer, lengths), model(features, tokens, lengths), atol=1e-6, rtol=1e-5)


def test_every_weight_gets_a_finite_gradient(model):
    loss = PolynomialLoss(margin=2.0, positive_ceiling=None).dense()
    loss(model(*batch())).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("name", list(MODELS))
def test_a_training_from_data_to_results(name, tmp_path):
    folder = write_tiny(tmp_path)
    settings = {"model": name, "embed_size": WIDTH, "word_dim": 6, "batch_size": 4, "epochs": 1, "device": "cpu"}
    config = ExperimentConfig(dataset=folder.name, data_root=str(folder.parent), **settings)
    run = train(config, tmp_path / "run", lambda text: None)
    loaded, found, _ = load_model(run)
    assert type(loaded) is MODELS[name]
    assert found == config


# ------------------------------------------------------------------------------------------------ one by one


@pytest.mark.parametrize("bidirectional", [True, False])
def test_vse(bidirectional):
    torch.manual_seed(2)
    model = VSE(FEATURES, VOCABULARY, WIDTH, 6, bidirectional)
    features, tokens, lengths = batch()
    for i, regions in enumerate(features):
        image = F.normalize(model.image_encoder.fc(regions.mean(dim=0)), dim=0)
        for j, (caption, length) in enumerate(zip(tokens, lengths.tolist(), strict=True)):
            encoder = model.caption_encoder
            states = encoder.rnn(encoder.embed(caption[None, :length]))[0][0]
            last = (states[-1, :WIDTH] + states[0, WIDTH:]) / 2 if bidirectional else states[-1]
            expected = image @ F.normalize(last, dim=0)
            torch.testing.assert_close(model(features, tokens, lengths)[i, j], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("hidden", [0, 5])
def test_heads_on_frozen_embeddings(hidden):
    torch.manual_seed(6)
    model = FrozenEmbeddings(4, 3, WIDTH, hidden)
    images, captions = torch.randn(5, 4), torch.randn(6, 3)
    found = model(images, captions)
    assert found.shape == (5, 6)

    def head(layers, x):
        if not hidden:
            return F.linear(x, layers.weight, layers.bias)
        first, _, last = layers
        return F.linear(F.linear(x, first.weight, first.bias).clamp(min=0), last.weight, last.bias)

    for i, image in enumerate(images):
        for j, caption in enumerate(captions):
            expected = F.cosine_similarity(head(model.image_head, image), head(model.caption_head, caption), dim=0)
            torch.testing.assert_close(found[i, j], expected, atol=1e-6, rtol=1e-5)


def test_gpo_weights_ranks():
    torch.manual_seed(3)
    pooling, x = GPO(positions=6, hidden=5, temperature=0.5), torch.randn(5, 6, 3)
    found = pooling(x, LENGTHS).detach()
    for vectors, length, pooled in zip(x, LENGTHS.tolist(), found, strict=True):
        states = pooling.rnn(positional_encoding(length, 6)[None])[0][0]
        logits = (pooling.linear((states[:, :5] + states[:, 5:]) / 2) / 0.5).flatten().tolist()
        total = sum(math.exp(logit) for logit in logits)
        for d in range(3):
            ranks = sorted(vectors[:length, d].tolist(), reverse=True)
            expected = sum(math.exp(logit) / total * value for logit, value in zip(logits, ranks, strict=True))
            assert float(pooled[d]) == pytest.approx(expected, abs=1e-5)
    theta = pooling.weights(LENGTHS, 6)
    torch.testing.assert_close(theta.sum(dim=1), torch.ones(5))
    assert (theta[torch.arange(6) >= LENGTHS[:, None]] == 0).all()


def test_gpo_does_not_know_the_order():
    pooling, x = GPO(), torch.randn(2, 6, 3)
    lengths = torch.tensor([6, 6])
    torch.testing.assert_close(pooling(x, lengths), pooling(x[:, torch.randperm(6)], lengths))


def test_positions_are_encoded_by_sine_and_cosine():
    for k, row in enumerate(positional_encoding(4, 6)):
        for i in range(3):
            angle = k / 10000 ** (2 * i / 6)
            assert row[2 * i : 2 * i + 2].tolist() == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-6)


def test_vse_infinity_pools_regions_and_words():
    torch.manual_seed(4)
    model = VSEInfinity(FEATURES, VOCABULARY, WIDTH, 6)
    features, tokens, lengths = batch()
    regions = model.image_encoder.fc(features)
    images = model.image_pooling(regions, torch.full((5,), 4))
    captions = model.caption_pooling(model.caption_encoder.read(tokens, lengths)[0], lengths)
    expected = F.normalize(images, dim=1) @ F.normalize(captions, dim=1).T
    torch.testing.assert_close(model(features, tokens, lengths), expected, atol=1e-6, rtol=1e-5)


def test_bfan():
    """Query by query: attention, what is below the mean dropped, the rest shared out anew, a cosine."""
    torch.manual_seed(5)
    model = BFAN(FEATURES, VOCABULARY, WIDTH, 6, lambda_softmax=7.0)
    features, tokens, lengths = batch()
    images, captions = model.embed_images(features), model.embed_captions(tokens, lengths)

    def mean_cosine(queries, context):
        a = F.leaky_relu(queries @ context.T, 0.1)
        a = a / (a.norm(dim=0, keepdim=True) + 1e-8)
        cosines = []
        for query, similarities in zip(queries, a, strict=True):
            P = (7.0 * similarities).softmax(dim=0)
            P = torch.where(P.mean() - 1e-7 <= P, P, 0)
            cosines.append(F.cosine_similarity(query, (P / P.sum()) @ context, dim=0))
        return torch.stack(cosines).mean()

    for i, image in enumerate(images):
        for j, length in enumerate(lengths.tolist()):
            words = captions[j, :length]
            expected = (mean_cosine(image, words) + mean_cosine(words, image)) / 2
            found = model.scores(images, captions, lengths)[i, j]
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    unfocused = sum(
        cross_attention_scores(images, captions, lengths, way, lambda_softmax=7.0) for way in ("i2t", "t2i")
    )
    assert (unfocused / 2 - model.scores(images, captions, lengths)).abs().max() > 1e-3
