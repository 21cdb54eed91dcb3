"""Backbones, the grid, and what is made of a picture; weights are random, and nothing is downloaded."""

import io
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from uwml_lib.config import BACKBONE
from uwml_lib.datasets.raw import grid_features as module
from uwml_lib.datasets.raw import region_models
from uwml_lib.datasets.raw.grid_features import (
    build_backbone,
    feature_map,
    grid_boxes,
    grid_features,
    grid_model,
    load_picture,
)
from uwml_lib.support.errors import UWMLError

SMALL = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def timm():
    return region_models.import_vision("timm")


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return build_backbone(SMALL, pretrained=False)


def refused(words: str, *arguments, **options) -> str:
    with pytest.raises(UWMLError, match=words) as error:
        build_backbone(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# ------------------------------------------------------------------------------------------------ backbones


def test_a_convolutional_map(small):
    assert (small.name, small.dim, small.map_size) == (SMALL, 288, (7, 7))
    pixels = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(feature_map(SMALL, small.model, pixels), small.model.forward_features(pixels))


def test_tokens_lie_in_a_square(timm):
    model = timm.create_model("vit_tiny_patch16_224", depth=1, reg_tokens=2).eval()
    with torch.inference_mode():
        pixels = torch.rand(2, 3, 224, 224)
        tokens, found = model.forward_features(pixels), feature_map("vit", model, pixels)
    assert found.shape == (2, 192, 14, 14)
    for row in range(14):
        for column in range(14):
            assert torch.equal(found[:, :, row, column], tokens[:, 3 + 14 * row + column])


def test_channels_may_be_last(timm):
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1)
    ).eval()
    with torch.inference_mode():
        pixels = torch.rand(1, 3, 224, 224)
        assert torch.equal(feature_map("swin", model, pixels), model.forward_features(pixels).permute(0, 3, 1, 2))


@pytest.mark.parametrize("output", [torch.zeros(1, 5, 8), torch.zeros(1, 2, 3, 4), torch.zeros(1, 8), (1, 2)])
def test_other_outputs(output):
    class Model(torch.nn.Module):
        num_features, num_prefix_tokens = 8, 0

        def forward_features(self, pixels):
            return output

    with pytest.raises(UWMLError, match="backbone: odd gives .*, expected a feature map or a square of tokens"):
        feature_map("odd", Model(), torch.zeros(1, 3, 4, 4))


def test_the_transform_is_the_model_s_own_but_keeps_the_whole_picture(small):
    pixels = np.full((40, 100, 3), 255, np.uint8)
    pixels[:, :10] = 0  # a cut from the middle would lose this
    found = small.transform(Image.fromarray(pixels))
    assert found.shape == (3, 224, 224)
    black, white = ((value - 0.485) / 0.229 for value in (0, 1))
    assert found[0, 100, 5].item() == pytest.approx(black, abs=1e-4)
    assert found[0, 100, 200].item() == pytest.approx(white, abs=1e-4)


def test_a_digest_of_name_weights_and_input(small):
    torch.manual_seed(0)
    assert build_backbone(SMALL, pretrained=False).digest == small.digest
    assert build_backbone(SMALL, pretrained=False).digest != small.digest


def test_the_default_is_one_of_timm(timm):
    known = timm.get_pretrained_cfg(BACKBONE)
    assert known.has_weights
    assert known.hf_hub_id == f"timm/{BACKBONE}"


def test_unless_told_otherwise_it_is_the_default_at_its_resolution(monkeypatch):
    monkeypatch.setattr(module, "BACKBONE", SMALL)
    monkeypatch.setattr(module, "RESOLUTION", 96)
    monkeypatch.setattr(module, "_with_weights", lambda timm, name, *_: timm.create_model(name))
    sizes = {"default": {}, "asked": {"resolution": 64}, "own": {"backbone": SMALL}}
    found = {name: grid_model(grid=2, **options).settings["resolution"] for name, options in sizes.items()}
    assert found == {"default": 96, "asked": 64, "own": 224}


def test_another_resolution(small):
    torch.manual_seed(0)
    found = build_backbone(SMALL, pretrained=False, resolution=96)
    assert (found.input_size, found.map_size, found.digest != small.digest) == ((96, 96), (3, 3), True)
    assert found.transform(Image.new("RGB", (40, 100))).shape == (3, 96, 96)
    torch.manual_seed(0)
    assert build_backbone(SMALL, pretrained=False, resolution=224).digest == small.digest  # its own


def test_another_resolution_of_tokens_whose_places_are_learned():
    found = build_backbone("vit_tiny_patch16_224", pretrained=False, resolution=96)
    assert (found.map_size, found.input_size) == ((6, 6), (96, 96))
    assert grid_features(found, torch.rand(1, 3, 96, 96), 6).shape == (1, 36, 192)


def test_its_own_resolution_need_be_no_multiple():
    found = build_backbone("tinynet_e", pretrained=False, resolution=106)  # as pictures.json may say
    assert (found.input_size, found.map_size) == ((106, 106), (4, 4))
    assert build_backbone("tinynet_e", pretrained=False, resolution=64).map_size == (2, 2)


def test_resolutions_that_cannot_be():
    for wanted in (0, 100, 4096):
        refused(
            f"resolution: found {wanted}, expected a multiple of 32 up to 2,048, for {SMALL}",
            SMALL, pretrained=False, resolution=wanted,
        )  # fmt: skip
    refused(
        r"resolution: found 256, expected 224, for mixer_s32_224 takes no other \(Input height",
        "mixer_s32_224", pretrained=False, resolution=256,
    )  # fmt: skip


def test_unknown_names():
    refused(
        "backbone: found 'mobilenetv3_smal_050', expected a model of timm; did you mean mobilenetv3_small_050?",
        "mobilenetv3_smal_050",
    )
    refused("backbone: found 'resnet50.tv_in1', expected .* did you mean resnet50.tv_in1k?", "resnet50.tv_in1")
    refused(f"backbone: found '', expected a model of timm such as {BACKBONE}", "")


def test_no_weights_to_download(timm, monkeypatch):
    name = next(name for name in timm.list_models() if not timm.get_pretrained_cfg(name).has_weights)
    monkeypatch.setattr(timm, "create_model", None)
    refused(f"backbone: timm has no weights of {name}; choose another, or name a file by --weights", name)


def test_offline_it_says_which_file_goes_where(timm, monkeypatch, caplog):
    logger = logging.getLogger("huggingface_hub.utils._http")

    def fail(*_, **__):
        logger.warning("Retrying in 1s [Retry 1/5].")
        raise OSError("Connection refused. Please check.\nAnd more.")

    monkeypatch.setattr(timm, "create_model", fail)
    assert refused("downloaded", SMALL) == (
        f"{SMALL}: its weights could not be downloaded (Connection refused); fetch model.safetensors from "
        f"https://huggingface.co/timm/{SMALL}.lamb_in1k and name the file by `--weights` of `uwml pictures` "
        "(or `uwml data`, for a grid)"
    )
    assert caplog.messages == []
    logger.warning("afterwards")
    assert caplog.messages == ["afterwards"]


def test_without_the_extra(monkeypatch):
    for missing in ("torchvision", "timm"):
        with monkeypatch.context() as context:
            context.setitem(sys.modules, missing, None)
            refused(r"features of pictures need timm: .make setup., or pip install '/path/to/the/kit\[vision\]'", SMALL)


# Stands in for a torchvision whose compiled part does not fit torch, as PyPI's beside torch for CPUs.
ODD_TORCHVISION = """
import torch
for name in ("nms", "qnms"):
    torch.library.register_fake(f"torchvision::{name}")(lambda *_: None)
"""


def test_a_torchvision_of_another_build(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text(ODD_TORCHVISION)
    program = "from uwml_lib.datasets.raw import region_models as m; m._import_torchvision(); m._import_torchvision()"
    places = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": places}
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", [ImportError, RuntimeError])
def test_a_torchvision_that_cannot_be_imported(monkeypatch, kind):
    def fail():
        raise kind("operator torchvision::other does not exist")

    monkeypatch.setattr(region_models, "_import_torchvision", fail)
    words = "operator torchvision::other does not exist"
    assert refused("imported", SMALL) == (
        f"timm or torchvision cannot be imported ({words}); install the torchvision that belongs to torch "
        f"{torch.__version__}"
    )


# ------------------------------------------------------------------------------------------------ weights of a file


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".wrapped.pth"])
def test_weights_of_a_file(small, tmp_path, ending):
    path, state = tmp_path / f"weights{ending}", small.model.state_dict()
    if ending == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if "wrapped" in ending else state, path)
    found = build_backbone(SMALL, path)
    assert found.digest == small.digest
    assert all(torch.equal(value, state[key]) for key, value in found.model.state_dict().items())


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hostile",)


def test_a_hostile_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in (("a.pth", Hostile()), ("b.pth", {"state_dict": Hostile()})):
        torch.save(content, name)
        refused(f"{name}: not readable as weights, from which no code is run", SMALL, Path(name))
        Path(name).rename("c.safetensors")
        refused("c.safetensors: not readable as weights", SMALL, Path("c.safetensors"))
    assert not Path("hostile").exists()


def test_files_that_hold_no_such_weights(small, tmp_path):
    refused("absent: no such file", SMALL, tmp_path / "absent")
    path = tmp_path / "weights.pth"
    path.write_bytes(b"PK")
    refused("weights.pth: not readable as weights", SMALL, path)
    for content in ([1], {}, {"model": 3}, {"a": 3}):
        torch.save(content, path)
        refused("weights.pth: not readable as weights, from which no code is run", SMALL, path)
    state = small.model.state_dict()
    for wrong in ({"a": torch.zeros(1)}, dict(list(state.items())[:-1]), {**state, "more": torch.zeros(1)}):
        torch.save(wrong, path)
        refused(f"weights.pth: does not fit {SMALL} ", SMALL, path)
    torch.save(state, path)
    refused("weights.pth: does not fit mobilenetv3_small_075 ", "mobilenetv3_small_075", path)


# ------------------------------------------------------------------------------------------------ the grid


def windows(size: int, grid: int) -> list[range]:
    return [range(math.floor(k * size / grid), math.ceil((k + 1) * size / grid)) for k in range(grid)]


@pytest.mark.parametrize("grid", [1, 3, 6, 7])
def test_regions_are_means_over_the_cells(small, grid):
    pixels = torch.rand(2, 3, 224, 224)
    found = grid_features(small, pixels, grid)
    with torch.inference_mode():
        whole = small.model.forward_features(pixels)
    assert found.shape == (2, grid**2, 288)
    assert found.dtype == torch.float32
    boxes = grid_boxes((7, 7), grid)
    for i, rows in enumerate(windows(7, grid)):
        for j, columns in enumerate(windows(7, grid)):
            mean = sum(whole[:, :, row, column] for row in rows for column in columns) / (len(rows) * len(columns))
            torch.testing.assert_close(found[:, grid * i + j], mean)
            expected = np.array([columns.start, rows.start, columns.stop, rows.stop]) / 7
            np.testing.assert_allclose(boxes[grid * i + j], expected, rtol=1e-6)


def test_boxes_of_a_map_that_is_no_square():
    upper, lower = (0, 2 / 3), (1 / 3, 1)
    expected = [(x1, y1, x2, y2) for y1, y2 in (upper, lower) for x1, x2 in ((0, 0.5), (0.5, 1))]
    np.testing.assert_allclose(grid_boxes((3, 4), 2), expected, rtol=1e-6)


# ------------------------------------------------------------------------------------------------ pictures


def colours(rows: int = 4, columns: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_camera_is_heeded(tmp_path, orientation):
    image, exif = Image.fromarray(colours()), Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "x.png", exif=exif)
    pixels = colours()
    upright = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1), 7: pixels[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(pixels),
    }[orientation]  # fmt: skip
    assert np.array_equal(np.asarray(load_picture(tmp_path / "x.png")), upright)


GREY = colours()[:, :, 0]
ALPHA = np.where(np.arange(6) < 3, 255, 0).astype(np.uint8)[None].repeat(4, 0)
ON_WHITE = np.where(ALPHA[..., None] > 0, colours(), 255)


@pytest.mark.parametrize(
    ("image", "ending", "expected"),
    [
        (Image.fromarray(GREY), "png", GREY[..., None].repeat(3, 2)),
        (Image.fromarray(GREY.astype(np.uint16) * 256 + 9), "png", GREY[..., None].repeat(3, 2)),
        (Image.fromarray(GREY > 99), "png", (GREY > 99)[..., None].repeat(3, 2) * 255),
        (Image.fromarray(np.dstack([colours(), ALPHA])), "png", ON_WHITE),
        (Image.fromarray(np.dstack([GREY, ALPHA])), "png", np.where(ALPHA > 0, GREY, 255)[..., None].repeat(3, 2)),
        (Image.fromarray(colours()).quantize(256), "png", colours()),
        (Image.fromarray(colours()).quantize(256), "gif", colours()),
        (Image.fromarray(colours()).convert("CMYK"), "tif", colours()),
        (Image.fromarray(colours()), "bmp", colours()),
        (Image.fromarray(colours()), "ppm", colours()),
    ],
)
def test_pictures_of_every_kind_become_rgb(tmp_path, image, ending, expected):
    image.save(tmp_path / f"x.{ending}")
    found = load_picture(tmp_path / f"x.{ending}")
    assert found.mode == "RGB"
    assert np.array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_lossy_pictures(tmp_path, ending):
    image = Image.fromarray(np.full((40, 60, 3), 99, np.uint8))
    image.save(tmp_path / "wrong_ending.png", format={"jpg": "JPEG", "webp": "WEBP"}[ending])
    assert np.abs(np.asarray(load_picture(tmp_path / "wrong_ending.png")).astype(int) - 99).max() < 4


def of(image: Image.Image, ending: str) -> bytes:
    file = io.BytesIO()
    image.save(file, ending)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"not readable as an image \("),
        (b"<html>not found</html>", "is a web page, not the file itself"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not readable as an image"),
        (of(Image.fromarray(colours()), "PCX"), "not readable as an image"),  # whole, but of no usual format
        (of(Image.fromarray(colours(90, 90)), "PNG")[:-5000], "not readable as an image"),
        (of(Image.fromarray(colours(90, 90)), "JPEG")[:-2000], r"not readable as an image \(image file is truncated"),
        (of(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "found 32 bits a pixel, mode F, expected 8 or 16"),
        (of(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "found 32 bits a pixel, mode I, expected 8 or 16"),
    ],
)
def test_what_is_no_picture(tmp_path, content, words):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(UWMLError, match=words) as error:
        load_picture(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
