"""Every model keeps the contract, and each of the smaller ones is what a loop over its equation gives."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.tiny import make_varying, write_caption_vectors, write_tiny
from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import load_split
from uwml_lib.evaluation import score_matrix
from uwml_lib.losses import PolynomialLoss
from uwml_lib.models import (
    BFAN,
    MODELS,
    VSE,
    DualEncoding,
    FrozenEmbeddings,
    VSEInfinity,
    build_model,
    cross_attention_scores,
    model_class,
)
from uwml_lib.models.vse_infinity import GPO, positional_encoding
from uwml_lib.runs import load_model, read_metrics
from uwml_lib.support.errors import UWMLError
from uwml_lib.training import check_model_fits, train

FEATURES, VOCABULARY, WIDTH = 7, 20, 8
LENGTHS = torch.tensor([6, 2, 4, 6, 1])
COUNTS = torch.tensor([4, 1, 3, 2, 4])
VARYING = [name for name, model in MODELS.items() if model.varying]


def batch(reads: str = "words") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Five images of four regions and captions of ragged length, padded with zeros, or that are vectors."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(5, 4, FEATURES, generator=generator)
    if reads == "vectors":
        return features, torch.rand(5, VOCABULARY, generator=generator), torch.ones(5, dtype=torch.int64)
    tokens = torch.randint(1, VOCABULARY, (5, 6), generator=generator)
    return features, tokens.masked_fill(torch.arange(6) >= LENGTHS[:, None], 0), LENGTHS


def build(name: str):
    torch.manual_seed(1)
    captions = "vectors" if MODELS[name].reads == "vectors" else "text"
    config = ExperimentConfig(model=name, captions=captions, embed_size=WIDTH, word_dim=6, hidden=5)
    return build_model(config, FEATURES, VOCABULARY)


@pytest.fixture(params=list(MODELS))
def model(request):
    return build(request.param)


def test_scores_are_cosines_of_every_pair(model):
    features, tokens, lengths = batch(model.reads)
    scores = model(features, tokens, lengths)
    assert scores.shape == (5, 5)
    assert (scores.abs() <= 1 + 1e-6).all()
    images, captions = model.embed_images(features[:2]), model.embed_captions(tokens[2:], lengths[2:])
    torch.testing.assert_close(model.scores(images, captions, lengths[2:]), scores[:2, 2:], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.reads == "words"])
def test_padding_has_no_influence(name):
    model, (features, tokens, lengths) = build(name), batch()
    longer = F.pad(tokens, (0, 3)).masked_fill(torch.arange(9) >= lengths[:, None], 5)
    torch.testing.assert_close(model(features, longer, lengths), model(features, tokens, lengths), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", VARYING)
def test_what_is_beyond_an_image_s_regions_has_no_influence(name):
    model = build(name)
    features, tokens, lengths = batch(model.reads)
    scores = model(features, tokens, lengths, COUNTS)
    junk = features.masked_fill(torch.arange(4)[:, None] >= COUNTS[:, None, None], 9.0)
    torch.testing.assert_close(model(F.pad(junk, (0, 0, 0, 2), value=9.0), tokens, lengths, COUNTS), scores)
    captions = model.embed_captions(tokens, lengths)
    for row, image, count in zip(scores, features, COUNTS.tolist(), strict=True):  # one by one, without any padding
        alone = model.scores(model.embed_images(image[None, :count]), captions, lengths)
        torch.testing.assert_close(alone[0], row, atol=1e-6, rtol=1e-5)
    full = torch.full((5,), 4)
    torch.testing.assert_close(model(features, tokens, lengths, full), model(features, tokens, lengths))


def test_every_weight_gets_a_finite_gradient(model):
    loss = PolynomialLoss(margin=2.0, positive_ceiling=None).dense()
    loss(model(*batch(model.reads))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def tiny_config(name: str, base, **settings) -> ExperimentConfig:
    write_caption_vectors(folder := write_tiny(base / "tiny"))
    settings |= {"model": name, "captions": "vectors" if MODELS[name].reads == "vectors" else "text"}
    settings |= {"embed_size": WIDTH, "word_dim": 6, "batch_size": 4, "device": "cpu"}
    return ExperimentConfig(dataset=folder.name, data_root=str(folder.parent), **settings)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_training_from_data_to_results(name, tmp_path):
    config = tiny_config(name, tmp_path, epochs=1)
    run = train(config, tmp_path / "run", lambda text: None)
    loaded, found, _ = load_model(run)
    assert type(loaded) is MODELS[name]
    assert found == config


@pytest.mark.parametrize("name", VARYING)
def test_a_training_on_images_of_unequal_numbers_of_regions(name, tmp_path):
    config = tiny_config(name, tmp_path, epochs=6, learning_rate=0.02, warmup_epochs=6, workers=2)
    make_varying(config.data_folder)
    run = train(config, tmp_path / "run", lambda text: None)
    epochs = [line["dev_rsum"] for line in read_metrics(run) if line["kind"] == "epoch"]
    assert max(epochs) > 350  # it learns; equal scores would give 0, random ones some 270
    model, _, vocabulary = load_model(run)
    dev = load_split(config, "dev", vocabulary)
    with torch.no_grad():
        batch = dev.batch(range(len(dev)))
        whole = model.scores(
            model.embed_images(dev.images(0, 12), dev.counts(range(12))),
            model.embed_captions(batch.tokens, batch.lengths),
            batch.lengths,
        )
    torch.testing.assert_close(score_matrix(model, dev, 5), whole, atol=1e-6, rtol=1e-5)


def test_a_model_for_equal_numbers_says_so(tmp_path):
    config = tiny_config("scan", tmp_path)
    make_varying(config.data_folder)
    with pytest.raises(UWMLError, match=r"model: found 'scan', expected one for images of unequal .*: vse, .*frozen"):
        train(config, tmp_path / "run", lambda text: None)


@pytest.mark.parametrize(("name", "captions", "expected"), [("frozen", "text", "vectors"), ("scan", "vectors", "text")])
def test_a_model_reads_words_or_vectors(name, captions, expected):
    with pytest.raises(UWMLError, match=f"captions: found '{captions}', expected '{expected}', which model {name} re"):
        model_class(ExperimentConfig(model=name, captions=captions))


@pytest.mark.parametrize("hidden", [0, 5])
def test_frozen_embeddings_need_no_text(hidden, tmp_path):
    config = tiny_config("frozen", tmp_path, hidden=hidden, epochs=8, learning_rate=0.02, warmup_epochs=8)
    for path in config.data_folder.glob("*_caps.txt"):
        path.unlink()
    run = train(config, tmp_path / "run", lambda text: None)
    epochs = [line["dev_rsum"] for line in read_metrics(run) if line["kind"] == "epoch"]
    assert max(epochs) > 350
    assert len(load_model(run)[2]) == 4  # no words but the special ones
    vectors = config.data_folder / "dev_caps.npy"
    np.save(vectors, 2 * np.load(vectors))
    with pytest.raises(UWMLError, match="other data"):
        train(config, tmp_path / "run", lambda text: None)


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


def test_the_heads_take_the_mean_of_regions():
    torch.manual_seed(8)
    model, images = FrozenEmbeddings(4, 3, WIDTH), torch.randn(5, 2, 4)
    torch.testing.assert_close(model.embed_images(images), model.embed_images(images.mean(dim=1)))


def test_dual_encoding():
    """Item by item: mean of the rows, mean of both directions' states, a linear map of the two side by side."""
    torch.manual_seed(7)
    model = DualEncoding(FEATURES, VOCABULARY, WIDTH, 6)
    features, tokens, lengths = batch()

    def embed(encoder, rows):
        ahead, back = encoder.rnn(rows[None])[0][0].unflatten(-1, (2, -1)).unbind(dim=1)
        levels = [rows.mean(dim=0), ahead.mean(dim=0), back.mean(dim=0)]
        return F.normalize(encoder.fc(torch.cat(levels)), dim=0)

    found = model(features, tokens, lengths, COUNTS)
    for i, (video, count) in enumerate(zip(features, COUNTS.tolist(), strict=True)):
        for j, (caption, length) in enumerate(zip(tokens, lengths.tolist(), strict=True)):
            words = embed(model.caption_encoder, model.embed(caption[:length]))
            expected = embed(model.video_encoder, video[:count]) @ words
            torch.testing.assert_close(found[i, j], expected, atol=1e-6, rtol=1e-5)
    backwards = model.embed_images(features.flip(1))
    assert (model.embed_images(features) - backwards).abs().max() > 1e-3  # it knows the order


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


def test_cosines_are_never_rounded_to_half_precision():
    images, captions = (F.normalize(torch.randn(50, 8), dim=1) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        found = VSE(FEATURES, VOCABULARY, WIDTH, 6).scores(images, captions)
    assert torch.equal(found, images @ captions.T)
    assert VSE(FEATURES, VOCABULARY, WIDTH, 6).scores(images.double(), captions.double()).dtype == torch.float64


def test_a_batch_of_more_pairs_than_there_are_is_refused_before_anything_is_trained(tmp_path):
    config = replace(tiny_config("vse", tmp_path), batch_size=81)
    with pytest.raises(UWMLError, match="batch_size: found 81, expected at most the 80 training captions"):
        check_model_fits(config)
