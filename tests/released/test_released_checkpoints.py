"""Checkpoints of the released code: the same numbers, from every format, and no code run from a file."""

import argparse
import os
import pickle
import shutil
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import write_split
from uwml_lib.config import FIDELITY
from uwml_lib.datasets import Batch, Vocabulary
from uwml_lib.released.checkpoints import convert_released_checkpoint, load_released_checkpoint
from uwml_lib.runs import load_model
from uwml_lib.support.errors import UWMLError
from uwml_lib.training import Trainer

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDED = [GOLDEN / "checkpoint_i2t_bigru", GOLDEN / "checkpoint_t2i_gru_weightnorm"]
BIGRU = RECORDED[0] / "model_best.pth.tar"


@pytest.fixture
def content():
    """What a released checkpoint holds."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(BIGRU, weights_only=True)


def write(path, content, **options):
    torch.save(content, path, **options)
    return path


def assert_same_model(model, other):
    for (name, found), (expected_name, expected) in zip(
        model.state_dict().items(), other.state_dict().items(), strict=True
    ):
        assert name == expected_name
        assert torch.equal(found, expected)


# ------------------------------------------------------------------------------------------------ recorded numbers


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_embeddings_and_scores(folder):
    model, _ = load_released_checkpoint(folder / "model_best.pth.tar")
    assert not model.training
    expected = {name: torch.tensor(array) for name, array in np.load(folder / "expected.npz").items()}
    captions, lengths = expected["captions"], expected["lengths"]
    with torch.no_grad():
        images_found, captions_found = model.embed_images(expected["images"]), model.embed_captions(captions, lengths)
        scores = model(expected["images"], captions, lengths)
    torch.testing.assert_close(images_found, expected["image_embeddings"], atol=1e-5, rtol=0)
    torch.testing.assert_close(scores, expected["scores"], atol=1e-5, rtol=0)
    for found, recorded, length in zip(captions_found, expected["caption_embeddings"], lengths, strict=True):
        torch.testing.assert_close(found[:length], recorded[:length], atol=1e-5, rtol=0)


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
@pytest.mark.filterwarnings("ignore:.*made with the Punkt")  # where that is not here; the tokens are recorded
def test_the_trainer_follows_the_recorded_losses(folder, tmp_path):
    """From the recorded start, through the trainer's own step: Adam, clipping, the released loss."""
    model, config = load_released_checkpoint(folder / "initial.pth.tar")
    for split in ("train", "dev"):
        write_split(tmp_path / "data/tiny", split, np.zeros((4, 6, 10), np.float32), ["word0"] * 8)
    run = tmp_path / "run"
    (run / "checkpoint").mkdir(parents=True)
    (run / "config.json").touch()
    shutil.copy(GOLDEN / "tiny_vocab.json", run / "vocabulary.json")
    trainer = Trainer(
        replace(config, data_root=str(tmp_path / "data"), device="cpu", captions="text", dev_captions=0), run
    )
    trainer.model.load_state_dict(model.state_dict())
    recorded = {name: torch.tensor(array) for name, array in np.load(folder / "trajectory.npz").items()}
    losses = []
    for step in range(len(recorded["losses"])):
        images, captions, lengths = (recorded[f"step{step}.{name}"] for name in ("images", "captions", "lengths"))
        # One image id for all: in the release these are negatives of each other all the same.
        batch = Batch(images, captions, lengths, torch.zeros(len(images), dtype=torch.int64), None, None)
        losses.append(trainer.step(batch, trainer.loss)["loss"].item())
    np.testing.assert_allclose(losses, recorded["losses"], atol=1e-5)


def test_the_configuration_is_that_of_the_flags():
    config = load_released_checkpoint(BIGRU)[1]
    assert (config.dataset, config.embed_size, config.word_dim, config.bidirectional) == ("tiny", 16, 12, True)
    assert (config.direction, config.aggregation, config.weight_norm) == ("i2t", "Mean", False)
    assert (config.loss, config.batch_size, config.learning_rate, config.data_root) == ("polynomial", 8, 0.002, "")
    assert config.fidelity == "released"
    assert {name: getattr(config, name) for name in FIDELITY["released"]} == FIDELITY["released"]
    assert load_released_checkpoint(RECORDED[1] / "model_best.pth.tar")[1].weight_norm


def test_a_checkpoint_of_scan_has_the_triplet_loss(content, tmp_path):
    for name in ("a", "b", "precomp_enc_type"):  # SCAN has no coefficients, its first files no encoder type either
        delattr(content["opt"], name)
    config = load_released_checkpoint(write(tmp_path / "scan.pth.tar", content))[1]
    assert (config.loss, config.loss_options, config.weight_norm) == ("triplet", {}, False)


# ------------------------------------------------------------------------------------------------ formats


class Python2Pickler(pickle._Pickler):
    """Writes text as Python 2 wrote it."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_text(self, text):
        self.write(pickle.SHORT_BINSTRING + bytes([len(text)]) + text.encode("latin1"))
        self.memoize(text)

    dispatch[str] = save_text


def test_files_without_a_zip_archive(content, tmp_path):
    path = write(tmp_path / "legacy.pth.tar", content, _use_new_zipfile_serialization=False)
    assert_same_model(load_released_checkpoint(path)[0], load_released_checkpoint(BIGRU)[0])


def test_files_of_python_2(content, tmp_path):
    python2 = types.SimpleNamespace(Pickler=Python2Pickler, dump=lambda value, file, protocol: Python2Pickler(
        file, protocol).dump(value), __name__="pickle", HIGHEST_PROTOCOL=2)  # fmt: skip
    path = write(
        tmp_path / "python2.pth.tar", content, _use_new_zipfile_serialization=False, pickle_module=python2,
        pickle_protocol=2,
    )  # fmt: skip
    assert b"U\x07weights" not in path.read_bytes()
    assert b"U\x05epoch" in path.read_bytes()
    model, config = load_released_checkpoint(path)
    assert config == load_released_checkpoint(BIGRU)[1]
    assert_same_model(model, load_released_checkpoint(BIGRU)[0])


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("number", [np.float64(1.5), np.float32(1.5), np.int64(2), np.int32(2)])
def test_numbers_of_numpy(content, tmp_path, number, zipped):
    content["best_rsum"], content["opt"].grad_clip = number, float(number)
    path = write(tmp_path / "numpy.pth.tar", content, _use_new_zipfile_serialization=zipped)
    assert load_released_checkpoint(path)[1].gradient_clip == number


def test_numbers_of_numpy_1(content, tmp_path):
    """Under its older name."""
    content["best_rsum"] = np.float64(1.5)
    path = write(tmp_path / "numpy1.pth.tar", content, _use_new_zipfile_serialization=False)
    old = path.read_bytes()
    assert old.count(b"cnumpy._core.multiarray\nscalar\n") == 1
    path.write_bytes(old.replace(b"cnumpy._core.multiarray\nscalar\n", b"cnumpy.core.multiarray\nscalar\n"))
    assert_same_model(load_released_checkpoint(path)[0], load_released_checkpoint(BIGRU)[0])


# ------------------------------------------------------------------------------------------------ hostile and damaged


class Hostile:
    """Makes a folder when it is unpickled by a reader that runs what it is told."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("place", ["opt", "model", "flag", "alone"])
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_refused_and_not_run(content, tmp_path, place, form):
    trap = Hostile(tmp_path / "ran")
    if place == "flag":
        content["opt"].data_name = trap
    elif place == "alone":
        content = trap
    else:
        content[place] = trap
    path = tmp_path / "hostile.pth.tar"
    if form == "pickle":
        if place != "alone":
            content["model"] = []
        path.write_bytes(pickle.dumps(content))
    else:
        write(path, content, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UWMLError, match=r"hostile\.pth\.tar: (asks for more|not readable)"):
        load_released_checkpoint(path)
    assert not (tmp_path / "ran").exists()
    torch.load(write(path, trap), weights_only=False)
    assert (tmp_path / "ran").exists()  # the trap is one


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_short_or_damaged(content, tmp_path, zipped):
    whole = write(tmp_path / "whole.pth.tar", content, _use_new_zipfile_serialization=zipped).read_bytes()
    path = tmp_path / "damaged.pth.tar"
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UWMLError, match=r"damaged\.pth\.tar: not readable as a checkpoint, damaged or cut short"):
            load_released_checkpoint(path)
    generator = np.random.default_rng(0)
    for place in generator.integers(len(whole), size=60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            load_released_checkpoint(path)  # without an archive nothing guards the numbers themselves
        except UWMLError as error:
            assert str(path) in str(error)  # noqa: PT017 (most of them, not all)
    with pytest.raises(UWMLError, match="absent: no such file"):
        load_released_checkpoint(tmp_path / "absent")
    with pytest.raises(UWMLError, match="it is a folder"):
        load_released_checkpoint(tmp_path)


def huge(weights):
    return weights | {"embed.weight": torch.zeros(1, 1).expand(10**9, 12)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("opt"), "not a checkpoint of the SCAN, PolyLoss or VSE"),
        (lambda c: c["model"].pop(), "not a checkpoint of the SCAN, PolyLoss or VSE"),
        (lambda c: c["model"][0].pop("fc.weight"), "not a checkpoint of the SCAN, PolyLoss or VSE"),
        (lambda c: c["model"][0].update({"fc.weight": 3}), "not a checkpoint of the SCAN, PolyLoss or VSE"),
        (lambda c: c.update(model=[c["model"][0], huge(c["model"][1])]), "embed.weight is no whole tensor"),
        (lambda c: c["model"][1].pop("rnn.bias_ih_l0"), "its weights do not fit the model of its flags"),
        (lambda c: setattr(c["opt"], "bi_gru", False), "its weights do not fit the model of its flags"),
        (
            lambda c: setattr(c["opt"], "vocab_size", 25),
            "found weights of vocab_size 24, expected 25, as its flags",
        ),
        (
            lambda c: setattr(c["opt"], "embed_size", 17),
            "found weights of embed_size 16, expected 17, as its flags",
        ),
        (lambda c: setattr(c["opt"], "num_layers", 2), "--num_layers: found 2, expected 1"),
        (lambda c: setattr(c["opt"], "cross_attn", "both"), "--cross_attn: found 'both', expected one of i2t, t2i"),
        (lambda c: setattr(c["opt"], "raw_feature_norm", "l1norm"), "--raw_feature_norm: found 'l1norm'"),
        (lambda c: setattr(c["opt"], "margin", [1]), r"--margin: found \[1\], expected a value like 0.2"),
        (lambda c: setattr(c["opt"], "embed_size", "16"), "--embed_size: found '16', expected a value like 1024"),
        (lambda c: setattr(c["opt"], "cross_attn", []), "--cross_attn: found"),
        (lambda c: setattr(c["opt"], "data_name", "../data"), "dataset: found '../data'"),
    ],
)
def test_what_does_not_fit(content, tmp_path, change, message):
    change(content)
    path = write(tmp_path / "wrong.pth.tar", content)
    with pytest.raises(UWMLError, match=message) as caught:
        load_released_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("other", [[1], 3, torch.zeros(3)])
def test_another_file_of_torch(tmp_path, other):
    with pytest.raises(UWMLError, match="expected a dict, as the releases write"):
        load_released_checkpoint(write(tmp_path / "other.pt", other))


# ------------------------------------------------------------------------------------------------ conversion


@pytest.mark.filterwarnings("ignore:.*made with the Punkt")
def test_conversion(tmp_path):
    words = Vocabulary.load(GOLDEN / "tiny_vocab.json")
    for folder in RECORDED:
        path = folder / "model_best.pth.tar"
        convert_released_checkpoint(path, words, tmp_path / folder.name)
        model, config, vocabulary = load_model(tmp_path / folder.name)
        assert (config, vocabulary.words) == (load_released_checkpoint(path)[1], words.words)
        assert_same_model(model, load_released_checkpoint(path)[0])
    with pytest.raises(UWMLError, match="found files, expected a new or empty folder"):
        convert_released_checkpoint(path, words, tmp_path / folder.name)
    with pytest.raises(UWMLError, match=r"model_best\.pth\.tar: made for 24 words, but the vocabulary has 23"):
        convert_released_checkpoint(path, Vocabulary(words.words[:-1]), tmp_path / "other")
    assert not (tmp_path / "other").exists()
