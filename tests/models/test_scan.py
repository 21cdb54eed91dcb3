"""SCAN: the released initialisation, lengths and padding."""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.tiny import write_tiny
from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import PrecomputedDataset, build_vocabulary
from uwml_lib.losses import PolynomialLoss
from uwml_lib.models import SCAN, build_model, cross_attention_scores
from uwml_lib.models.encoders import CaptionEncoder, ImageEncoder, l2_normalise
from uwml_lib.support.errors import UWMLError


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random_captions(n=5, words=6, vocabulary=20):
    lengths = torch.randint(1, words + 1, (n,))
    lengths[0] = words
    tokens = torch.randint(1, vocabulary, (n, words)).masked_fill(torch.arange(words) >= lengths[:, None], 0)
    return tokens, lengths


# ------------------------------------------------------------------------------------------------ the encoders


def test_the_released_initialisation():
    encoder = ImageEncoder(300, 500)
    bound = math.sqrt(6 / 800)
    assert 0.99 * bound < encoder.fc.weight.abs().max() <= bound
    assert encoder.fc.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert (encoder.fc.bias == 0).all()
    embedding = CaptionEncoder(500, 100, 8).embed.weight
    assert 0.099 < embedding.abs().max() <= 0.1
    assert embedding.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.02)


def test_every_part_has_length_one():
    images = ImageEncoder(7, 8)(torch.randn(3, 4, 7))
    tokens, lengths = random_captions()
    captions = CaptionEncoder(20, 6, 8)(tokens, lengths)
    torch.testing.assert_close(images.norm(dim=-1), torch.ones(3, 4))
    present = torch.arange(6) < lengths[:, None]
    torch.testing.assert_close(captions.norm(dim=-1), present.float())


def test_weight_normalised_images():
    encoder = ImageEncoder(7, 8, weight_norm=True)
    names = set(dict(encoder.named_parameters()))
    assert names == {"fc.bias", "fc.parametrizations.weight.original0", "fc.parametrizations.weight.original1"}
    with torch.no_grad():
        encoder.fc.parametrizations.weight.original0.mul_(3)  # the gain, one for the whole matrix
    direction = encoder.fc.parametrizations.weight.original1
    assert encoder.fc.weight.norm().item() == pytest.approx(encoder.fc.parametrizations.weight.original0.item())
    torch.testing.assert_close(F.normalize(encoder.fc.weight.flatten(), dim=0), F.normalize(direction.flatten(), dim=0))


@pytest.mark.parametrize("bidirectional", [True, False])
def test_words_are_the_mean_of_the_directions(bidirectional):
    encoder = CaptionEncoder(20, 6, 8, bidirectional)
    tokens, lengths = random_captions()
    found = encoder(tokens, lengths)
    assert found.shape == (5, 6, 8)
    for caption, words, length in zip(found, tokens, lengths.tolist(), strict=True):
        states = encoder.rnn(encoder.embed(words[None, :length]))[0][0]
        expected = (states[:, :8] + states[:, 8:]) / 2 if bidirectional else states
        torch.testing.assert_close(caption[:length], F.normalize(expected, dim=-1))
        assert (caption[length:] == 0).all()


def test_captions_do_not_depend_on_order_padding_or_company():
    encoder = CaptionEncoder(20, 6, 8)
    tokens, lengths = random_captions(n=7)
    found = encoder(tokens, lengths)
    order = torch.tensor([6, 2, 4, 0, 1, 5, 3])
    torch.testing.assert_close(encoder(tokens[order], lengths[order]), found[order])
    for k, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(encoder(tokens[k : k + 1, :length], lengths[k : k + 1])[0], found[k, :length])
    rubbish = tokens.masked_fill(torch.arange(6) >= lengths[:, None], 19)
    assert torch.equal(encoder(rubbish, lengths), found)


def test_l2_normalise_a_zero_vector():
    x = torch.zeros(2, 3, requires_grad=True)
    l2_normalise(x).sum().backward()
    assert (l2_normalise(x) == 0).all()
    assert x.grad.isfinite().all()


# ------------------------------------------------------------------------------------------------ the model


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_forward_is_embedding_and_scoring(direction, bidirectional):
    model = SCAN(7, 20, embed_size=8, word_dim=6, bidirectional=bidirectional, direction=direction)
    features, (tokens, lengths) = torch.randn(5, 4, 7), random_captions()
    images, captions = model.embed_images(features), model.embed_captions(tokens, lengths)
    scores = model(features, tokens, lengths)
    assert scores.shape == (5, 5)
    assert torch.equal(scores, model.scores(images, captions, lengths))
    plain = cross_attention_scores(images, captions, lengths, direction, implementation="plain")
    torch.testing.assert_close(scores, plain)
    assert scores.abs().max() <= 1 + 1e-6


def test_the_options_reach_the_scores():
    options = {"direction": "t2i", "normalisation": "softmax", "aggregation": "LogSumExp"}
    model = SCAN(7, 20, 8, 6, **options, lambda_softmax=0.0, lambda_lse=3.0)
    images, captions, lengths = torch.randn(2, 4, 8), torch.randn(3, 6, 8), torch.tensor([6, 2, 3])
    expected = cross_attention_scores(images, captions, lengths, **options, lambda_softmax=0.0, lambda_lse=3.0)
    assert torch.equal(model.scores(images, captions, lengths), expected)
    attention = model.attention(images[0], captions[0])
    torch.testing.assert_close(attention, torch.full((6, 4), 0.25))  # an inverse temperature of 0 looks everywhere


@pytest.mark.parametrize(("direction", "summed"), [("i2t", 0), ("t2i", 1)])
def test_attention_is_that_of_the_scores(direction, summed):
    model = SCAN(7, 20, 8, 6, direction=direction)
    image, caption = l2_normalise(torch.randn(4, 8)), l2_normalise(torch.randn(6, 8))
    attention = model.attention(image, caption)
    assert attention.shape == (6, 4)
    torch.testing.assert_close(attention.sum(dim=summed), torch.ones(attention.shape[1 - summed]))
    queries, attended = (image, attention.T @ caption) if direction == "i2t" else (caption, attention @ image)
    expected = F.cosine_similarity(queries, attended, dim=-1).mean()
    torch.testing.assert_close(model.scores(image[None], caption[None], torch.tensor([6]))[0, 0], expected)


def test_from_config():
    config = ExperimentConfig(
        embed_size=8, word_dim=6, bidirectional=False, weight_norm=True, direction="t2i", normalisation="l2norm",
        aggregation="Max", lambda_softmax=3.0, lambda_lse=2.0,
    )  # fmt: skip
    torch.manual_seed(3)
    built = build_model(config, 7, 20)
    torch.manual_seed(3)
    attention = {"normalisation": "l2norm", "aggregation": "Max", "lambda_softmax": 3.0, "lambda_lse": 2.0}
    expected = SCAN(7, 20, 8, 6, False, True, direction="t2i", **attention)
    assert built.attention_options == expected.attention_options
    for (name, found), (other, weight) in zip(built.state_dict().items(), expected.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(found, weight)
    with pytest.raises(UWMLError, match="model: found 'clip', expected one of scan"):
        build_model(ExperimentConfig(model="clip"), 7, 20)


def test_every_weight_gets_a_finite_gradient_on_a_ragged_batch(tmp_path):
    folder = write_tiny(tmp_path)
    dataset = PrecomputedDataset(folder, "train", build_vocabulary(folder))
    batch = dataset.batch(torch.randperm(len(dataset))[:12].tolist())
    assert batch.lengths.min() < batch.lengths.max()
    for direction in ("i2t", "t2i"):
        model = SCAN(dataset.feature_dim, len(dataset.vocabulary), 8, 6, direction=direction)
        PolynomialLoss().dense()(model(*batch[:3]), batch.image_ids).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
