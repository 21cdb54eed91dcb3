"""Checkpoints of SCAN's relatives: VSE++ is scored as itself, others are refused by name, no flag is passed over."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import write_split
from uwml_lib.cli import main
from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import Vocabulary, load_split
from uwml_lib.evaluation import retrieval_metrics
from uwml_lib.models import VSE
from uwml_lib.released.checkpoints import load_released_checkpoint
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, read_sealed_json

WORDS = ("<pad>", "<start>", "<end>", "<unk>", *(f"w{number}" for number in range(7)))
DIM, EMBED, WORD_DIM = 8, 5, 6
SHARED = {
    "data_path": "data", "data_name": "tiny", "vocab_path": "vocab", "margin": 0.2, "num_epochs": 30,
    "batch_size": 128, "word_dim": WORD_DIM, "embed_size": EMBED, "grad_clip": 2.0, "num_layers": 1,
    "learning_rate": 2e-4, "lr_update": 15, "workers": 10, "log_step": 10, "val_step": 500, "logger_name": "runs",
    "resume": "", "max_violation": True, "img_dim": DIM, "no_imgnorm": False, "vocab_size": len(WORDS),
}  # fmt: skip
VSEPP = SHARED | {
    "crop_size": 224, "finetune": False, "cnn_type": "resnet152", "use_restval": False, "measure": "cosine",
    "use_abs": False,
}  # fmt: skip
SCAN = SHARED | {
    "model_name": "runs", "no_txtnorm": False, "raw_feature_norm": "clipped_l2norm", "agg_func": "LogSumExp",
    "cross_attn": "t2i", "precomp_enc_type": "basic", "bi_gru": False, "lambda_lse": 6.0, "lambda_softmax": 9.0,
}  # fmt: skip
BFAN = {name: value for name, value in SCAN.items() if name not in ("raw_feature_norm", "agg_func", "cross_attn")}

pytestmark = pytest.mark.filterwarnings("ignore:.*made with the Punkt")


def two_parts():
    """Tensors of the two encoders, whose names and shapes SCAN and VSE++ share."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "embed.weight": (len(WORDS), WORD_DIM), "rnn.weight_ih_l0": (3 * EMBED, WORD_DIM),
        "rnn.weight_hh_l0": (3 * EMBED, EMBED), "rnn.bias_ih_l0": (3 * EMBED,), "rnn.bias_hh_l0": (3 * EMBED,),
    }  # fmt: skip
    draw = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    return [{"fc.weight": torch.randn(EMBED, DIM, generator=generator), "fc.bias": torch.ones(EMBED)}, draw]


weights = pytest.fixture(two_parts, name="weights")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data set with one vector an image, and a test split of one image too."""
    monkeypatch.setattr(paths, "EVALUATIONS", tmp_path / "evaluations")
    generator = np.random.default_rng(0)
    for split, size in (("dev", 1), ("test", 20)):
        captions = [" ".join(f"w{n}" for n in generator.integers(0, 7, 1 + k % 4)) for k in range(2 * size)]
        write_split(tmp_path / "data/tiny", split, generator.normal(size=(size, DIM)).astype(np.float32), captions)
    Vocabulary(list(WORDS)).save(tmp_path / "data/tiny/tiny_vocab.json")
    return tmp_path / "data"


def write(path, flags, parts):
    torch.save({"epoch": 30, "model": parts, "best_rsum": 400.0, "opt": argparse.Namespace(**flags)}, path)
    return path


def evaluate(capsys, *words):
    assert main(["evaluate", *map(str, words)]) == 0
    out = capsys.readouterr().out
    return read_sealed_json(Path(out.splitlines()[-1])), out


def vsepp_scores(weights, features, captions):
    """VSE++, number by number: a linear map of the image, the GRU's state at the last word, both of length 1."""
    (image, text), vectors = ({name: x.double().numpy() for name, x in part.items()} for part in weights), []
    for caption in captions:
        state = np.zeros(EMBED)
        for word in caption:
            x = text["rnn.weight_ih_l0"] @ text["embed.weight"][word] + text["rnn.bias_ih_l0"]
            h = text["rnn.weight_hh_l0"] @ state + text["rnn.bias_hh_l0"]
            reset, update = (1 / (1 + np.exp(-x[part] - h[part])) for part in (slice(EMBED), slice(EMBED, 2 * EMBED)))
            state = (1 - update) * np.tanh(x[2 * EMBED :] + reset * h[2 * EMBED :]) + update * state
        vectors.append(state / np.sqrt((state**2).sum()))
    images = features.astype(float) @ image["fc.weight"].T + image["fc.bias"]
    return (images / np.sqrt((images**2).sum(axis=1, keepdims=True))) @ np.array(vectors).T


@pytest.mark.parametrize("prefix", ["", "module."])
def test_vsepp_is_scored_as_vsepp(weights, root, tmp_path, capsys, prefix):
    parts = [{f"{prefix}{name}": x for name, x in part.items()} for part in weights]
    path = write(tmp_path / "vsepp.pth.tar", VSEPP, parts)
    model, config = load_released_checkpoint(path)
    assert isinstance(model, VSE)
    assert (config.model, config.loss, config.bidirectional, config.captions) == ("vse", "triplet", False, "text")
    features = np.load(root / "tiny/test_ims.npy")
    dataset = load_split(ExperimentConfig("tiny", str(root)), "test", Vocabulary(list(WORDS)))
    naive = vsepp_scores(weights, features, dataset.encoded)
    tokens, lengths = dataset.read_captions(range(40))
    with torch.no_grad():
        scores = model.scores(
            model.embed_images(torch.tensor(features)[:, None]), model.embed_captions(tokens, lengths)
        )
    np.testing.assert_allclose(scores, naive, atol=1e-6)
    results, out = evaluate(capsys, path, "--data-root", root)
    assert results["metrics"] == retrieval_metrics(naive, 2)
    assert "test split:\n  VSE++\n" in out
    assert "SCAN" not in out
    vocabulary = root / "tiny/tiny_vocab.json"
    assert main(["convert", str(path), str(tmp_path / "folder"), "--vocabulary", str(vocabulary)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'folder'}\n"
    assert evaluate(capsys, tmp_path / "folder", "--data-root", root)[0]["ranks"] == results["ranks"]


def test_vsepp_on_several_regions_says_that_it_takes_their_mean(weights, root, tmp_path, capsys):
    path = write(tmp_path / "vsepp.pth.tar", VSEPP, weights)
    _, out = evaluate(capsys, path, "--data-root", root)
    assert "mean of an image's" not in out
    np.save(root / "tiny/test_ims.npy", np.ones((20, 3, DIM), np.float32))
    _, out = evaluate(capsys, path, "--data-root", root)
    assert "  VSE++, which takes the mean of an image's 3 regions\n" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (BFAN | {"focal_type": "equal"}, "found those of BFAN, expected those of SCAN, PolyLoss or VSE"),
        (BFAN | {"mean_neg": 0.0, "stnd_neg": 0.0}, "found those of NAAF"),
        (BFAN | {"module_name": "SGR", "sgr_step": 3, "sim_dim": 256}, "found those of SGRAF"),
        (VSEPP | {"dim_vid": 1024}, "found those of VSRN"),
        (SHARED | {"vse_mean_warmup_epochs": 1}, "found those of VSE-infinity"),
        (BFAN, "found no --raw_feature_norm, --agg_func, --cross_attn, which every file of SCAN has"),
        ({"data_name": "tiny"}, "found no --data_path, --margin, .*, which every file of SCAN has"),
        (
            VSEPP | {"measure": "order"},
            "--measure: found order, expected cosine: this kit's VSE.. scores by",
        ),
        (VSEPP | {"use_abs": True}, "--use_abs: found True, expected False: this kit's VSE"),
        (VSEPP | {"no_imgnorm": True}, "--no_imgnorm: found True, expected False: this kit's VSE.. always"),
        (VSEPP | {"num_layers": 2}, "--num_layers: found 2, expected 1"),
    ],
)
def test_what_is_refused_by_name(weights, tmp_path, flags, message):
    parts = [*weights, {}] if "sgr_step" in flags else weights
    path = write(tmp_path / "other.pth.tar", flags, parts)
    with pytest.raises(UWMLError, match=f"other.pth.tar: its flags cannot be understood: {message}"):
        load_released_checkpoint(path)


@pytest.mark.parametrize("flags", [SCAN, VSEPP], ids=["SCAN", "VSE++"])
def test_every_flag_that_decides_something_must_be_there(weights, tmp_path, flags):
    may_be_absent = {"vocab_path", "workers", "val_step", "logger_name", "model_name", "resume", "img_dim"}
    may_be_absent |= {"precomp_enc_type", "vocab_size"}
    for name in flags:
        rest = {other: value for other, value in flags.items() if other != name}
        path = write(tmp_path / "file.pth.tar", rest, weights)
        if name in may_be_absent:
            load_released_checkpoint(path)
        else:
            with pytest.raises(UWMLError, match=f"found no .*--{'agg_func' if name == 'measure' else name}"):
                load_released_checkpoint(path)


def test_vsepp_on_pixels_is_refused(weights, tmp_path):
    weights[0]["cnn.module.conv1.weight"] = torch.ones(1)
    with pytest.raises(UWMLError, match=r"pixels\.pth\.tar: found VSE\+\+ on pixels, with a CNN in it, expected VSE"):
        load_released_checkpoint(write(tmp_path / "pixels.pth.tar", VSEPP, weights))


@pytest.mark.parametrize("part", [0, 1])
def test_a_tensor_with_and_without_module_is_refused(weights, tmp_path, part):
    name = next(iter(weights[part]))
    weights[part][f"module.{name}"] = weights[part][name] + 1
    with pytest.raises(UWMLError, match=r"file\.pth\.tar: not a checkpoint .*names stand with and without module"):
        load_released_checkpoint(write(tmp_path / "file.pth.tar", SCAN, weights))


def test_flags_that_no_release_has_are_named(weights, root, tmp_path, capsys):
    path = write(tmp_path / "fork.pth.tar", SCAN | {"gate": 3, "vocab_size": len(WORDS)}, weights)
    with pytest.warns(UserWarning, match=r"fork\.pth\.tar: not read: --gate 3, which no release has"):
        load_released_checkpoint(path)
    results, out = evaluate(capsys, path, "--data-root", root)
    assert "  SCAN, t2i LogSumExp\n  fork.pth.tar: not read: --gate 3, which no release has;" in out
    assert results["members"][0]["flags_not_read"] == ["--gate 3"]
    words = ["convert", str(path), str(tmp_path / "folder"), "--vocabulary", str(root / "tiny/tiny_vocab.json")]
    assert main(words) == 0
    assert "fork.pth.tar: not read: --gate 3" in capsys.readouterr().out
    assert read_json(tmp_path / "folder/config.json")["released"]["flags_not_read"] == ["--gate 3"]
    assert "folder: not read: --gate 3" in evaluate(capsys, tmp_path / "folder", "--data-root", root)[1]


def test_features_of_another_size_are_said_in_a_sentence(weights, root, tmp_path, capsys):
    path = write(tmp_path / "vsepp.pth.tar", VSEPP, weights)
    np.save(root / "tiny/test_ims.npy", np.ones((20, DIM + 1), np.float32))
    assert main(["evaluate", str(path), "--data-root", str(root)]) == 1
    assert f"tiny: test split: found 9 numbers a region, expected {DIM}, which vsepp-" in capsys.readouterr().err


def test_one_image_is_said_to_mean_nothing(weights, root, tmp_path, capsys):
    path = write(tmp_path / "vsepp.pth.tar", VSEPP, weights)
    results, out = evaluate(capsys, path, "--data-root", root, "--split", "dev")
    assert results["metrics"]["rsum"] == 600
    chance = "random scores would give an rsum of 600.0 of 600, and any scores 100 at every recall"
    assert f"  Only 1 dev image: {chance}, so recalls over them mean nothing.\n" in out
