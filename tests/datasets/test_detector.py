"""The surest boxes of a detector, tiny and with random weights of a file: nothing is downloaded."""

import logging
import re
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from uwml_lib.cli import main
from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import PrecomputedDataset, check_data
from uwml_lib.datasets.raw import detector, pictures
from uwml_lib.datasets.raw.detector import detector_model, surest_boxes
from uwml_lib.datasets.raw.grid_features import load_picture
from uwml_lib.datasets.raw.growing import JOURNAL
from uwml_lib.datasets.raw.pictures import picture_features, write_pictures
from uwml_lib.datasets.raw.region_models import import_vision
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, read_sealed_json, write_json

NAMES = [f"{number}.png" for number in range(7)]
SIZES = [(60 + 10 * number, 90 - 5 * number) for number in range(7)]
TINY = {
    "num_labels": 5, "num_queries": 40, "num_feature_levels": 2, "decoder_n_points": [1, 1], "d_model": 16,
    "encoder_hidden_dim": 16, "encoder_in_channels": [8, 8], "decoder_in_channels": [16, 16], "feat_strides": [16, 32],
    "encode_proj_layers": [1], "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "decoder_layers": 2, "hidden_expansion": 0.5, "depth_mult": 0.34,
    "backbone_config": {
        "model_type": "hgnet_v2", "out_indices": [3, 4], "stem_channels": [3, 4, 4], "hidden_sizes": [8] * 4,
        "stage_in_channels": [4, 8, 8, 8], "stage_mid_channels": [4] * 4, "stage_out_channels": [8] * 4,
        "stage_num_blocks": [1] * 4, "stage_numb_of_layers": [1] * 4, "stage_light_block": [False] * 4,
        "stage_kernel_size": [3] * 4,
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(detector, "CONFIG", TINY)
    monkeypatch.setattr(detector, "INPUT", 96)


@pytest.fixture(scope="module")
def library():
    return import_vision("transformers.models.d_fine.modeling_d_fine")


@pytest.fixture(scope="module")
def weights(tmp_path_factory, library) -> Path:
    torch.manual_seed(0)
    state = library.DFineForObjectDetection(library.DFineConfig(**TINY)).state_dict()
    state = {name: value + torch.rand(value.shape) / 8 for name, value in state.items()}  # every head another one
    inside = "model.decoder."  # which has the heads of each layer under a second name
    state |= {name: state.get(name.removeprefix(inside), state[name]).clone() for name in state}
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def model(weights, library):
    config = library.DFineConfig(**TINY)
    return detector._with_weights(library.DFineForObjectDetection, config, weights)


@pytest.fixture
def built(monkeypatch, model):
    """Loading weights takes longer than all else."""
    monkeypatch.setattr(detector, "_with_weights", lambda *_: model)


@pytest.fixture
def images(tmp_path) -> Path:
    folder, random = tmp_path / "images", np.random.default_rng(0)
    folder.mkdir()
    for name, (width, height) in zip(NAMES, SIZES, strict=True):
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / name)
    (tmp_path / "captions.txt").write_text("".join(f"{name}\ta picture called {name}\n" for name in NAMES))
    return folder


@pytest.fixture
def make(images, tmp_path, weights):
    def call(**options) -> Path:
        given = {"regions": "detector", "boxes": 5, "weights": weights, "batch_size": 2, "say": lambda line: None}
        write_pictures(tmp_path / "mine", images, tmp_path / "captions.txt", **(given | options))
        return tmp_path / "mine"

    return call


def refused(words: str, call, *arguments, **options) -> None:
    with pytest.raises(UWMLError, match=words) as error:
        call(*arguments, **options)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------ boxes and vectors


def test_the_surest_boxes_come_first_and_are_cut_off_at_the_edge():
    found = SimpleNamespace(
        logits=torch.tensor([[[-3.0, 1.0], [2.0, -9.0], [0.0, 0.5], [-1.0, -1.0]]]),
        pred_boxes=torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.1, 0.9, 0.4, 0.4], [0.5, 0.5, 1, 1], [0.5, 0.5, 0.1, 0.1]]]),
        last_hidden_state=torch.arange(8.0, dtype=torch.float64).view(1, 4, 2),
    )
    vectors, corners = surest_boxes(lambda pixels: found, 3, torch.zeros(1, 3, 4, 4))
    assert vectors.tolist() == [[[2, 3], [0, 1], [4, 5]]]
    expected = torch.tensor([[[0, 0.7, 0.3, 1], [0.4, 0.3, 0.6, 0.7], [0, 0, 1, 1]]])
    torch.testing.assert_close(corners, expected)
    assert vectors.dtype == corners.dtype == torch.float32


def test_features_and_boxes_are_those_of_each_picture(make, images, built, model):
    folder = make()
    for split in ("train", "dev", "test"):
        dataset = PrecomputedDataset(folder, split)
        boxes = dataset.optional_array("boxes", 3)
        for row, name in enumerate(dataset.ids):
            picture = load_picture(images / name)
            pixels = np.asarray(picture.resize((96, 96), Image.Resampling.BILINEAR)).transpose(2, 0, 1) / 255
            with torch.inference_mode():
                found = model(torch.tensor(pixels[None], dtype=torch.float32))
            sureness = found.logits[0].sigmoid().max(dim=1).values.tolist()
            order = sorted(range(40), key=lambda query: -sureness[query])[:5]
            np.testing.assert_allclose(dataset.images(row, row + 1)[0], found.last_hidden_state[0, order], atol=1e-5)
            x, y, w, h = found.pred_boxes[0, order].T
            width, height = SIZES[NAMES.index(name)]
            corners = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
            expected = np.stack(corners, axis=1).clip(0, [width, height, width, height])
            np.testing.assert_allclose(boxes[row], expected, atol=1e-3)


def test_a_picture_is_squeezed_whole(weights, built):
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[:, :10], pixels[:, 90:] = (255, 0, 0), (0, 0, 255)
    found = detector_model(weights).transform(Image.fromarray(pixels))
    assert found.shape == (3, 96, 96) and found.dtype == torch.float32
    assert found[:, 30, 2].tolist() == [1, 0, 0] and found[:, 30, 93].tolist() == [0, 0, 1]


@pytest.mark.slow
def test_the_settings_are_those_of_d_fine_l(monkeypatch, library):
    monkeypatch.undo()
    config = library.DFineConfig(**detector.CONFIG)
    model = library.DFineForObjectDetection(config).eval()
    assert 31e6 < sum(parameter.numel() for parameter in model.parameters()) < 31.5e6  # 31 M in the authors' table
    vectors, corners = surest_boxes(model, 36, torch.rand(1, 3, detector.INPUT, detector.INPUT))
    assert (config.num_queries, vectors.shape, corners.shape) == (300, (1, 36, 256), (1, 36, 4))


# ------------------------------------------------------------------------------------------------ the data set


def test_through_the_command_to_the_data_set(images, tmp_path, weights, capsys):
    folder = tmp_path / "data/mine"
    words = ["pictures", str(folder), str(images), str(tmp_path / "captions.txt"), "--weights", str(weights)]
    assert main([*words, "--regions", "detector", "--boxes", "4"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"2/2 features by D-FINE-L on \w+: 4 regions of 16 numbers\n", out)
    assert f"{folder}/train_boxes.npy: 5 x 4 x 4\n" in out
    check_data(ExperimentConfig(dataset="mine", data_root=str(folder.parent)))
    about = read_json(folder / "pictures.json")
    assert about.pop("transformers") and len(about.pop("digest")) == 64
    assert about.pop("images") == str(images)
    assert about == {
        "regions": "detector", "detector": "D-FINE-L", "boxes": 4, "weights": str(weights),
        "dev": 10, "test": 10, "seed": 0,
    }  # fmt: skip


def test_a_picture_alone_gets_the_features_it_has_in_the_data_set(make, built, images):
    folder = make()
    dataset = PrecomputedDataset(folder, "train")
    picture = images / dataset.ids[3]
    torch.testing.assert_close(picture_features(folder, picture), dataset.images(3, 4), atol=1e-5, rtol=1e-4)
    about = read_json(folder / "pictures.json")
    wrong = {
        "tiny.safetensors: found other weights, or another input, expected those that made": {"digest": "0" * 64},
        "pictures.json: boxes: found '5', expected type int": {"boxes": "5"},
        "pictures.json: boxes: found 41, expected 1 to 40, the queries of D-FINE-L": {"boxes": 41},
        "pictures.json: regions: found 'masks', expected one of grid, detector": {"regions": "masks"},
    }
    for words, change in wrong.items():
        write_json(folder / "pictures.json", about | change)
        refused(words, picture_features, folder, picture)


@pytest.mark.slow
def test_interrupted_it_goes_on_to_the_same_bytes(make, built, monkeypatch):
    monkeypatch.setattr(pictures, "IMAGES_A_STEP", 2)
    whole = {path.name: path.read_bytes() for path in make().iterdir()}
    for path in (folder := make()).iterdir():
        path.unlink()
    left = [2, 4]  # images

    def until(*arguments):
        left.pop()
        return surest_boxes(*arguments)

    with monkeypatch.context() as context, pytest.raises(IndexError):
        context.setattr(detector, "surest_boxes", until)
        make()
    assert read_sealed_json(folder / JOURNAL)["done"] == 4
    assert {path.name: path.read_bytes() for path in make().iterdir()} == whole
    with monkeypatch.context() as context:
        context.setattr(detector, "surest_boxes", until)  # finished, it computes nothing
        make()
    refused("train_ims.npy: is there already; move it away", make, boxes=6)


def test_options_of_the_other_kind_are_refused(make, tmp_path):
    for option in ({"grid": 3}, {"backbone": "resnet18"}, {"resolution": 64}):
        ((name, value),) = option.items()
        words = f"{name}: found {value} with --regions detector, expected --{name} only with --regions grid"
        refused(words, make, boxes=None, **option)
    words = "boxes: found 5 with --regions grid, expected --boxes only with --regions detector"
    refused(words, make, regions="grid")
    refused("regions: found 'masks', expected one of grid, detector", make, regions="masks")
    for boxes in (0, 41):
        refused(f"boxes: found {boxes}, expected 1 to 40, the queries of D-FINE-L", make, boxes=boxes)
    assert not (tmp_path / "mine").exists()


# ------------------------------------------------------------------------------------------------ weights


def test_weights_are_downloaded_once_and_for_a_search_too(make, built, images, weights, monkeypatch):
    asked = []

    def download(*arguments):
        asked.append(arguments)
        return str(weights)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    folder = make(weights=None)
    assert read_json(folder / "pictures.json")["weights"] == "the hub's"
    picture_features(folder, images / NAMES[0])
    assert asked == [("ustc-community/dfine-large-obj2coco-e25", "model.safetensors")] * 2


def test_offline_it_says_which_file_goes_where(monkeypatch, caplog):
    def fail(*_):
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise OSError("Connection refused. Please check.\nAnd more.")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(UWMLError) as error:
        detector_model()
    assert str(error.value) == (
        "D-FINE-L: its weights could not be downloaded (Connection refused); fetch model.safetensors from "
        "https://huggingface.co/ustc-community/dfine-large-obj2coco-e25 and name the file by `--weights` of "
        "`uwml pictures` (or `uwml data`, for a grid)"
    )
    assert caplog.messages == []


@pytest.mark.slow
def test_weights_under_the_names_of_an_earlier_transformers(weights, model, tmp_path):
    """Those of the hub are of the version that brought D-FINE."""
    renamed = ((r"o_proj", "out_proj"), (r"aifi\.(\d+)", r"encoder.\1"), (r"(layers\.\d+)\.mlp\.layers\.0", r"\1.fc1"),
               (r"(layers\.\d+)\.mlp\.layers\.1", r"\1.fc2"))  # fmt: skip
    state = {}
    for name, value in load_file(weights).items():
        for now, then in renamed:
            name = re.sub(now, then, name)
        if not name.startswith("model.decoder.bbox_embed"):  # one tensor of two names, kept under one of them
            state[name] = value
    assert len(state.keys() - load_file(weights).keys()) > 20
    torch.save(state, tmp_path / "old.pth")
    found = detector_model(tmp_path / "old.pth").module.state_dict()
    expected = model.state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(value, expected[name]) for name, value in found.items())


def test_files_that_hold_no_such_weights(weights, tmp_path, monkeypatch):
    """And transformers prints no table of what does not fit."""
    logger, handler, printed = logging.getLogger("transformers"), logging.Handler(), []
    handler.emit = printed.append
    monkeypatch.setattr(logger, "handlers", [handler])
    level = logger.level
    refused("absent: no such file", detector_model, tmp_path / "absent")
    path, state = tmp_path / "weights.pth", load_file(weights)
    path.write_bytes(b"PK")
    refused("weights.pth: not readable as weights, from which no code is run", detector_model, path)
    head = "class_embed.0.weight"
    torch.save({name: value for name, value in state.items() if "enc_score_head" not in name}, path)
    refused(
        "weights.pth: found no model.enc_score_head.bias, .*weight, expected all .* of D-FINE-L", detector_model, path
    )
    torch.save(state | {head: torch.zeros(2, 2), f"model.decoder.{head}": torch.zeros(2, 2)}, path)
    refused("weights.pth: does not fit D-FINE-L ", detector_model, path)
    assert (printed, logger.level) == ([], level)
