"""What a run keeps on disk: bit-equal when read back, repeatable bytes, and no code run from a file."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import Vocabulary
from uwml_lib.datasets.vocabulary import SPECIALS, available_tokenizer
from uwml_lib.models import build_model
from uwml_lib.runs import load_model
from uwml_lib.runs.checkpoints import load_state, read_metrics, save_model, save_state
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import write_json

CONFIG = ExperimentConfig(embed_size=8, word_dim=6, weight_norm=True)
DESCRIPTION = {"feature_dim": 7, "vocabulary_size": 6, "epoch": 1, "dev_rsum": 12.5, "config": CONFIG.to_dict()}


@pytest.fixture
def run(tmp_path):
    """A run folder with a model, and the model."""
    torch.manual_seed(0)
    model = build_model(CONFIG, 7, 6)
    write_json(tmp_path / "config.json", {"config": CONFIG.to_dict(), "provenance": {}})
    Vocabulary([*SPECIALS, "a", "dog"], available_tokenizer()).save(tmp_path / "vocabulary.json")
    save_model(tmp_path / "checkpoint/best.safetensors", model, DESCRIPTION)
    return tmp_path, model


def test_a_model_comes_back_bit_by_bit(run):
    folder, model = run
    loaded, config, vocabulary = load_model(str(folder))
    assert config == CONFIG
    assert vocabulary.words == [*SPECIALS, "a", "dog"]
    assert not loaded.training
    for (name, found), (other, expected) in zip(loaded.state_dict().items(), model.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(found, expected)


def test_the_same_model_is_the_same_bytes(run):
    folder, model = run
    content = (folder / "checkpoint/best.safetensors").read_bytes()
    for _ in range(5):
        save_model(folder / "again.safetensors", model, dict(reversed(DESCRIPTION.items())))
        assert (folder / "again.safetensors").read_bytes() == content


def test_a_state_comes_back(tmp_path):
    model = build_model(CONFIG, 7, 6)
    optimizer = torch.optim.Adam(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    state = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(), "scaler": None,
        "history": [{"epoch": 0, "seconds": 0.1}], "best": float("-inf"), "cuda": [],
    }  # fmt: skip
    save_state(tmp_path / "checkpoint/last.pt", state)
    loaded = load_state(tmp_path / "checkpoint/last.pt")
    torch.testing.assert_close(loaded, state, rtol=0, atol=0)
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["last.pt"]


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_code_runs_from_a_state(tmp_path):
    trap = tmp_path / "trap"
    for number, write in enumerate((
        lambda path: torch.save({"model": Malicious(trap)}, path),
        lambda path: torch.save({"model": Malicious(trap)}, path, _use_new_zipfile_serialization=False),
        lambda path: path.write_bytes(pickle.dumps(Malicious(trap), protocol=2)),
    )):  # fmt: skip
        write(tmp_path / f"{number}.pt")
        with pytest.raises(UWMLError, match="not a training state of this kit"):
            load_state(tmp_path / f"{number}.pt")
        assert not trap.exists()


def test_damaged_states(tmp_path):
    path = tmp_path / "last.pt"
    save_state(path, {"model": {"weight": torch.arange(100.0)}, "history": []})
    whole = path.read_bytes()
    stream = torch.Generator().manual_seed(0)
    rubbish = [bytes(torch.randint(256, (200,), generator=stream).tolist()) for _ in range(100)]
    for damaged in (b"", b"{}", whole[: len(whole) // 2], whole[:-1], whole[1:], *rubbish):
        path.write_bytes(damaged)
        with pytest.raises(UWMLError, match="remove it to start over") as error:
            load_state(path)
        assert str(path) in str(error.value)
    with pytest.raises(UWMLError, match="absent.pt"):
        load_state(tmp_path / "absent.pt")


def weights_file(tensors, metadata=None):
    return lambda folder: save_file(tensors, folder / "checkpoint/best.safetensors", metadata)


def other_config(**changes):
    return lambda folder: write_json(folder / "config.json", {"config": CONFIG.to_dict() | changes})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "checkpoint/best.safetensors").unlink(), "has this run finished an epoch"),
        (lambda folder: (folder / "checkpoint/best.safetensors").write_bytes(b"x" * 99), "not a model of this kit"),
        (lambda folder: (folder / "checkpoint/best.safetensors").write_bytes(b""), "not a model of this kit"),
        (
            lambda folder: (folder / "checkpoint/best.safetensors").write_text(
                "version https://git-lfs.github.com/spec"
            ),
            "best.safetensors: is a pointer of Git LFS",
        ),
        (weights_file({"x": torch.zeros(1)}), "not a model of this kit"),
        (weights_file({"x": torch.zeros(1)}, {"description": "{"}), "not a model of this kit"),
        (weights_file({"x": torch.zeros(1)}, {"description": "[]"}), "not a model of this kit"),
        (weights_file({"x": torch.zeros(1)}, {"description": "{}"}), "not a model of this kit"),
        (weights_file({"x": torch.zeros(1)}, {"description": json.dumps(DESCRIPTION)}), "does not fit the model of"),
        (other_config(embed_size=9), "does not fit the model of"),
        (other_config(weight_norm=False), "does not fit the model of"),
        (other_config(model="clip"), "model: found 'clip'"),
        (other_config(embed_sise=9), "unknown key 'embed_sise'; did you mean 'embed_size'"),
        (lambda folder: (folder / "config.json").unlink(), "config.json: no such file"),
        (
            lambda folder: (folder / "config.json").write_text("{}"),
            "config.json: config: found NoneType, expected the names",
        ),
        (
            lambda folder: (folder / "config.json").write_text('{"config": 3}'),
            "config.json: config: found int, expected the names",
        ),
        (lambda folder: (folder / "vocabulary.json").unlink(), "vocabulary.json: no such file"),
        (
            lambda folder: Vocabulary([*SPECIALS, "a"], available_tokenizer()).save(folder / "vocabulary.json"),
            "made for 6 words, but .*vocabulary.json has 5",
        ),
    ],
)
def test_damaged_run_folders(run, damage, message):
    folder, _ = run
    damage(folder)
    with pytest.raises(UWMLError, match=message):
        load_model(folder)


def test_of_the_metrics_a_last_line_that_was_cut_off_is_left_out_and_no_other(tmp_path):
    line = json.dumps({"kind": "step", "epoch": 0, "step": 1, "loss": 0.5})
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{line}\n{line[:9]}", encoding="utf-8")
    assert read_metrics(tmp_path) == [json.loads(line)]
    path.write_text(f"{line}\n{line[:9]}\n{line}\n", encoding="utf-8")
    with pytest.raises(UWMLError, match=r"metrics\.jsonl: line 2 is no record of a training"):
        read_metrics(tmp_path)
