"""From raw files, or photographs, to the report by the documented commands alone."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import command_line
from tests.backbone import SMALL, random_weights
from tests.hub import published, serving
from tests.raw import entry, tsv_row
from tests.tiny import SIZES, write_tiny
from uwml_lib.datasets.hub import ON_THE_HUB
from uwml_lib.datasets.precomputed import read_lines
from uwml_lib.datasets.raw import grid_features
from uwml_lib.datasets.raw.grid_features import build_backbone
from uwml_lib.evaluation import chance_rsum
from uwml_lib.support.files import read_json

DATASET = "f30k_precomp"
IN_THE_JSON = {"train": "train", "dev": "val", "test": "test"}
TRAIN = (
    "--embed-size", "32", "--word-dim", "16", "--epochs", "12", "--warmup-epochs", "4", "--learning-rate", "0.01",
    "--batch-size", "20", "--device", "cpu",
)  # fmt: skip


def uwml(home: Path, *arguments: str) -> str:
    """Run a command as a person would; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "uwml_lib.cli", *arguments], cwd=home, env={**os.environ, "UWML_HOME": str(home)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def write_raw(home: Path) -> dict[str, np.ndarray]:
    """Write the JSON and two TSV files, rows in a random order; return the features of each split."""
    made = write_tiny(home / "made", captions_per_image=3)
    entries, rows, features = [], [], {}
    for split, size in SIZES.items():
        features[split], captions = np.load(made / f"{split}_ims.npy"), read_lines(made / f"{split}_caps.txt")
        for number in range(size):
            image, sentences = str(1000 * (len(features) + 1) + number), captions[3 * number : 3 * number + 3]
            entries.append(entry(f"{image}.jpg", IN_THE_JSON[split], [*sentences, *sentences[:2], "left out"]))
            rows.append(tsv_row(image, np.full((3, 4), number), features[split][number]))
    (home / "dataset_flickr30k.json").write_text(json.dumps({"images": entries, "dataset": "flickr30k"}))
    np.random.default_rng(0).shuffle(rows)
    (home / "0.tsv").write_bytes(b"".join(rows[:30]))
    (home / "1.tsv").write_bytes(b"".join(rows[30:]))
    return features


@pytest.mark.slow
def test_raw_files_to_report(tmp_path):
    features = write_raw(tmp_path)
    folder, run = tmp_path / "data" / DATASET, tmp_path / "run"
    uwml(tmp_path, "captions", str(folder), "dataset_flickr30k.json")
    uwml(tmp_path, "features", str(folder), "0.tsv", "1.tsv", "--boxes", "3")
    for split, expected in features.items():
        assert np.array_equal(np.load(folder / f"{split}_ims.npy"), expected)
        assert np.load(folder / f"{split}_boxes.npy")[:, 0, 0].tolist() == list(range(len(expected)))

    assert uwml(tmp_path, "data", "--dataset", DATASET).splitlines()[: len(SIZES)] == [
        f"{split}: {size} images of 3 regions x 9 numbers, 5 captions each" for split, size in SIZES.items()
    ]
    uwml(tmp_path, "train", "--dataset", DATASET, *TRAIN, "--run-folder", str(run))
    assert (run / "checkpoint/best.safetensors").exists()
    rsum = float(re.search(r"rsum ([\d.]+)\n", uwml(tmp_path, "evaluate", str(run)))[1])
    assert rsum == pytest.approx(read_json(run / "results.json")["metrics"]["rsum"], abs=0.05)
    assert rsum > 1.4 * chance_rsum(SIZES["test"], 5)

    uwml(tmp_path, "reproduce", "--dataset", DATASET, "--profile", "smoke", "--seeds", "0", "--epochs", "1")
    report = uwml(tmp_path, "report", "--dataset", DATASET)
    assert report.startswith(f"## {DATASET}: {SIZES['test']} test images, 5 captions each\n")
    assert re.search(r"^\| polynomial +\|", report, flags=re.MULTILINE)
    assert "Verdict" in report
    assert (tmp_path / "reports/index.html").exists()


@pytest.mark.slow
def test_photographs_from_the_hub_to_the_report(tmp_path, monkeypatch):
    """By what `make reproduce DATASET=flickr8k` calls. The weights are random ones, of a file, for timm's cannot be
    downloaded everywhere.
    """
    weights, sizes = random_weights(tmp_path), dict(SIZES)
    monkeypatch.setitem(ON_THE_HUB, "flickr8k", ON_THE_HUB["flickr8k"]._replace(size=0, images=sizes))
    monkeypatch.setattr(grid_features, "BACKBONE", SMALL)
    monkeypatch.setattr(grid_features, "RESOLUTION", 192)
    monkeypatch.setattr(
        grid_features,
        "build_backbone",
        lambda name, _, resolution: build_backbone(name, weights, resolution=resolution),
    )
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING_FACE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as hub:
        hub.files = published("flickr8k", sizes)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        words = ("--dataset", "flickr8k", "--profile", "smoke", "--seeds", "0", "--epochs", "1")
        done = command_line.uwml(tmp_path, "reproduce", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    printed = done.stdout
    assert f"photographs: {', '.join(f'{size} images of {split}' for split, size in sizes.items())}\n" in printed
    assert re.search(r"^\| polynomial +\| +\d", printed, flags=re.MULTILINE)
    assert "Verdict" in printed
    for notebook in ("01_data_preparation", "03_cross_attention", "04_evaluation"):
        text = (tmp_path / f"reports/flickr8k/{notebook}.ipynb").read_text(encoding="utf-8")
        assert "flickr8k comes without" not in text
    assert {path.name for path in (tmp_path / "data/flickr8k").iterdir()} >= {
        "images",
        "captions.jsonl",
        "train_ims.npy",
    }
