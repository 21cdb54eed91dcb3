"""The published numbers, the settings that belong to them, and which runs may stand beside them."""

from dataclasses import replace

import pytest

from tests.tiny import write_tiny
from uwml_lib.config import FIDELITY, preset
from uwml_lib.evaluation import METRICS
from uwml_lib.released.published import PROTOCOLS, ROWS, row_config
from uwml_lib.reports.published import CELLS, NOTE, comparison_text, publish_comparison, settings, verdict
from uwml_lib.support import paths
from uwml_lib.support.files import read_json, sha256_of, write_json, write_sealed_json
from uwml_lib.training import check_config, train

TRAINED = [name for name, row in ROWS.items() if row.training is not None]
F30K_SHAPES = {"train": [29_000, 36, 2048], "dev": [1_014, 36, 2048], "test": [1_000, 36, 2048]}
COCO_SHAPES = {"train": [113_287, 36, 2048], "dev": [5_000, 36, 2048], "testall": [5_000, 36, 2048]}


# ------------------------------------------------------------------------------------------------ the table


@pytest.mark.parametrize("name", ROWS)
def test_recalls_add_up(name):
    *recalls, rsum = ROWS[name].metrics.values()
    known = [value for value in recalls if value is not None]
    assert all(0 < value < 100 for value in known)
    assert all(
        side == tuple(sorted(side)) for side in (recalls[:3], recalls[3:]) if None not in side for side in [tuple(side)]
    )
    if rsum is not None and len(known) == 6:
        assert rsum == pytest.approx(sum(known), abs=0.2)


def test_rows_are_named_after_their_protocol():
    prefixes = {"Flickr30K 1K": "f30k_", "COCO 1K": "coco1k_", "COCO 5K": "coco5k_"}
    for name, row in ROWS.items():
        assert name.startswith(prefixes[row.protocol.name])
        assert set(row.metrics) < set(METRICS)
        assert (row.training is None) == bool(row.not_trained)
        assert set(row.std) <= set(row.metrics)
        assert (row.n > 1) == bool(row.std)
        assert row.source


def test_the_protocols():
    assert [(item.dataset, item.split, item.folds) for item in PROTOCOLS] == [
        ("f30k_precomp", "test", 1), ("coco_precomp", "testall", 5), ("coco_precomp", "testall", 1),
    ]  # fmt: skip


COMMON = {
    "embed_size": 1024, "word_dim": 300, "bidirectional": True, "weight_norm": False, "batch_size": 128,
    "normalisation": "clipped_l2norm", "gradient_clip": 2.0, "warmup_epochs": 0, "mixed_precision": "no",
}  # fmt: skip
F30K = {"dataset": "f30k_precomp", "epochs": 30, "decay_epoch": 15, "learning_rate": 2e-4}
COCO = {"dataset": "coco_precomp", "epochs": 20, "decay_epoch": 10, "learning_rate": 5e-4}
I2T = {"direction": "i2t", "lambda_softmax": 4.0}
T2I = {"direction": "t2i", "lambda_softmax": 9.0}
MEAN = {"aggregation": "Mean", "lambda_lse": None}


def lse(value):
    return {"aggregation": "LogSumExp", "lambda_lse": value}


EXPECTED = {
    "f30k_polynomial_i2t_avg": {**F30K, **I2T, **MEAN, "loss": "polynomial"},
    "f30k_triplet_i2t_avg": {**F30K, **I2T, **MEAN},
    "f30k_triplet_i2t_lse": {**F30K, **I2T, **lse(5.0)},
    "f30k_triplet_t2i_avg": {**F30K, **T2I, **MEAN},
    "f30k_triplet_t2i_lse": {**F30K, **T2I, **lse(6.0)},
    "f30k_triplet_i2t_avg_retrained": {**F30K, **I2T, **MEAN},
    "coco1k_polynomial_i2t_avg": {**COCO, **I2T, **MEAN, "loss": "polynomial"},
    "coco1k_triplet_i2t_avg": {**COCO, **I2T, **MEAN},
    "coco1k_triplet_t2i_avg": {**COCO, **T2I, **MEAN},
    "coco5k_polynomial_i2t_avg": {**COCO, **I2T, **MEAN, "loss": "polynomial"},
    "coco5k_triplet_i2t_lse": {**COCO, **I2T, **lse(20.0)},
}


def test_settings_of_the_rows():
    assert sorted(EXPECTED) == sorted(TRAINED)
    for name, wanted in EXPECTED.items():
        config = row_config(name)
        check_config(config)
        found = settings(config)
        assert {key: found[key] for key in {**COMMON, **wanted}} == {**COMMON, **wanted}, name
        assert config.loss == ("polynomial" if "polynomial" in name else "triplet")
        if config.loss == "triplet":
            assert found["loss_options"] == {
                "margin": 0.2, "negatives": "hardest", "reduction": "sum", "check_finite": None,
            }  # fmt: skip


def test_settings_are_the_same_by_whatever_name():
    config = row_config("f30k_triplet_i2t_avg")
    for same in (
        {"lambda_softmax": 4.0}, {"lambda_lse": 7.0}, {"loss_options": {"margin": 0.2}}, {"data_root": "/x"},
        {"seed": 5}, {"device": "cpu"}, {"threads": 2}, {"workers": 3},
    ):  # fmt: skip
        assert settings(replace(config, **same)) == settings(config), same
    for other in (
        {"lambda_softmax": 9.0}, {"loss_options": {"margin": 0.1}}, {"loss_options": {"negatives": "all"}},
        {"loss": "triplet_all"}, {"warmup_epochs": 1}, {"epochs": 29}, {"mixed_precision": "bf16"}, {"max_images": 9},
        {"aggregation": "LogSumExp"}, {"bidirectional": False}, {"regions": 9}, {"embed_size": 512},
    ):  # fmt: skip
        assert settings(replace(config, **other)) != settings(config), other
    polynomial = row_config("f30k_polynomial_i2t_avg")
    assert settings(replace(polynomial, loss_options={"positive": [0.5, -0.7, 0.2]})) == settings(polynomial)


def test_the_pipelines_runs_are_those_of_the_rows():
    """So `make reproduce DATASET=f30k_precomp` fills two rows, and nothing is trained twice."""
    for loss in ("polynomial", "triplet"):
        assert row_config(f"f30k_{loss}_i2t_avg") == preset("f30k_precomp", loss=loss)


# ------------------------------------------------------------------------------------------------ the comparison


def write_run(folder, settings, rsum, split="test", features=F30K_SHAPES, file="results.json", **more):
    """A finished run that says it has an rsum, with equal recalls."""
    metrics = dict.fromkeys(METRICS, rsum / 6) | {"rsum": rsum}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", {"config": settings.to_dict()})
    results = {
        "config": settings.to_dict(), "split": split, "captions_per_image": 5, "metrics": metrics, "features": features,
        "files": {"config.json": sha256_of(folder / "config.json")},
    }  # fmt: skip
    write_sealed_json(folder / file, results | more)
    return folder


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(paths, "EVALUATIONS", tmp_path / "evaluations")
    monkeypatch.setattr(paths, "REPORTS", tmp_path)
    return tmp_path / "runs"


def cells(name, text=None):
    """(ours, difference, verdict) of a row; "–" in a column that its table leaves out."""
    lines = [line.strip("| ").split(" | ") for line in (text or publish_comparison()).splitlines()]
    place = next(place for place, (first, *_) in enumerate(lines) if first == name)
    heading = next(line for line in reversed(lines[:place]) if line[0] == "row")
    row = dict(zip(heading, lines[place], strict=True))
    return tuple(row.get(column, "–") for column in ("ours", "difference", "verdict"))


def test_without_runs_there_are_the_commands():
    text = comparison_text([])
    for name, row in ROWS.items():
        assert cells(name, text) == ("–", "–", f"not comparable: {row.not_trained or 'no run'}")
        assert (f"\nuwml train --row {name} --data-root /data --seed 0\n" in text) == (name in TRAINED)
    assert CELLS in text and NOTE not in text and "| difference |" not in text
    assert "| 66.2 ± 0.4/–/– · 43.9 ± 0.75/–/– · 447.4 ± 2.1 (n = 10) |" in text
    assert "| 68.1/91.4/– · 50.8/78.4/– · – |" in text


def test_seeds_fill_their_row_and_no_other(runs):
    config = row_config("f30k_triplet_i2t_lse")
    for seed, rsum in enumerate((448.0, 450.0, 452.0)):
        write_run(runs / f"f30k_precomp/a{seed}", replace(config, seed=seed), rsum)
    write_run(runs / "f30k_precomp/b", replace(config, seed=3, lambda_lse=20.0), 460.0)
    write_run(runs / "f30k_precomp/c", replace(config, seed=4, warmup_epochs=2), 460.0)
    text = publish_comparison()
    ours = "/".join(["75.0"] * 3)
    assert cells("f30k_triplet_i2t_lse", text) == (
        f"{ours} · {ours} · 450.0 ± 2 (n = 3)", "-1.4", "reproduced within 4.0"
    )  # fmt: skip
    assert "- f30k_triplet_i2t_lse, trained here, corrected: a0, a1, a2\n" in text
    assert "--row f30k_triplet_i2t_lse " not in text
    for name in ROWS:
        assert name == "f30k_triplet_i2t_lse" or cells(name, text)[0] == "–", name
    assert (runs.parent / "published.md").read_text(encoding="utf-8") == text


def test_one_run_stands_beside_every_row_of_its_settings(runs):
    write_run(runs / "f30k_precomp/a", row_config("f30k_triplet_i2t_avg"), 451.5)
    assert cells("f30k_triplet_i2t_avg")[1:] == ("-0.7", "reproduced within 1.0 (one seed)")
    assert cells("f30k_triplet_i2t_avg_retrained")[1:] == ("+4.1", "reproduced within 4.2 (one seed)")


def test_a_seed_counts_once(runs):
    for folder, threads in (("a", 1), ("b", 2)):
        write_run(runs / "f30k_precomp" / folder, replace(row_config("f30k_triplet_i2t_avg"), threads=threads), 450.0)
    assert "n = " not in cells("f30k_triplet_i2t_avg")[0]


@pytest.mark.parametrize(
    ("difference", "std", "words"),
    [
        (0.9, 0.0, "reproduced within 1.0"), (-0.9, 0.1, "reproduced within 1.0"), (1.1, 0.0, "better"),
        (-1.1, 0.0, "not reproduced"), (-3.9, 2.0, "reproduced within 4.0"), (4.1, 2.0, "better"),
        (-4.1, 2.0, "not reproduced"),
    ],
)  # fmt: skip
def test_the_verdict_follows_its_rule(difference, std, words):
    assert verdict(difference, std, ROWS["f30k_triplet_i2t_avg"]) == words


def test_the_published_spread_counts_too():
    assert verdict(-4.1, 0.5, ROWS["f30k_triplet_i2t_avg_retrained"]) == "reproduced within 4.2"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"features": {**F30K_SHAPES, "train": [29_000, 36, 128]}},
            "train: 29,000 × 36 × 128, not 29,000 × 36 × 2,048",
        ),
        ({"features": {**F30K_SHAPES, "train": [28_999, 36, 2048]}}, "train: 28,999 × 36"),
        ({"features": {**F30K_SHAPES, "train": [29_000, 10, 2048]}}, "train: 29,000 × 10"),
        ({"features": {**F30K_SHAPES, "dev": [1_000, 36, 2048]}}, "dev: 1,000 × 36"),
        ({"features": {**F30K_SHAPES, "test": [500, 36, 2048]}}, "test: 500 × 36"),
        ({"captions_per_image": 1}, "1 captions an image, not 5"),
        ({"split": "dev"}, "evaluated on the dev split, not on: test split"),
        ({"features": {}}, "does not say the shape of its features"),
    ],
)
def test_other_data_or_another_split_does_not_count(runs, change, words):
    write_run(runs / "f30k_precomp/a", row_config("f30k_triplet_i2t_avg"), 452.2, **change)
    ours, difference, said = cells("f30k_triplet_i2t_avg")
    assert (ours, difference) == ("–", "–")
    assert said.startswith("not comparable: ")
    assert words in said


def test_a_real_training_on_other_data_of_that_name_does_not_count(runs, tmp_path):
    """Even with the row's settings but for what makes it quick, which the row is given too."""
    write_tiny(tmp_path / "data/f30k_precomp")
    quick = {"embed_size": 8, "word_dim": 6, "epochs": 1, "batch_size": 16, "data_root": str(tmp_path / "data")}
    config = replace(row_config("f30k_triplet_i2t_avg"), **quick, device="cpu")
    folder = train(config, runs / "f30k_precomp/a", say=lambda text: None)
    assert read_json(folder / "results.json")["features"]["test"] == [14, 3, 9]
    row = replace(ROWS["f30k_triplet_i2t_avg"], training={**ROWS["f30k_triplet_i2t_avg"].training, **quick})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ROWS, row.name, row)
        assert cells(row.name)[2] == "not comparable: other data (train: 40 × 3 × 9, not 29,000 × 36 × 2,048)"


def test_coco_needs_testall_and_tells_folds_apart(runs):
    config = row_config("coco1k_polynomial_i2t_avg")
    coco = {"features": {**COCO_SHAPES, "test": [1_000, 36, 2048]}}
    folder = write_run(runs / "coco_precomp/a", config, 499.9, **coco)
    assert cells("coco1k_polynomial_i2t_avg")[2] == (
        "not comparable: evaluated on the test split, not on: testall split, mean of 5 folds of 1,000"
    )
    coco["features"] = COCO_SHAPES
    write_run(folder, config, 386.0, "testall", COCO_SHAPES, "results-testall.json")
    assert cells("coco1k_polynomial_i2t_avg")[0] == "–"
    assert cells("coco5k_polynomial_i2t_avg")[1:] == ("-0.7", "reproduced within 1.0 (one seed)")
    write_run(folder, config, 499.9, "testall", COCO_SHAPES, "results-testall-fold5.json", folds=5)
    assert cells("coco1k_polynomial_i2t_avg")[1:] == ("+0.4", "reproduced within 1.0 (one seed)")
    assert cells("coco5k_polynomial_i2t_avg")[1] == "-0.7"
    assert cells("coco1k_triplet_i2t_avg")[0] == "–"


def test_every_row_both_ways_and_the_checkpoint(runs):
    """Trained here or released, corrected or with the release's habits: each on a line of its own."""
    name = "f30k_polynomial_i2t_avg"
    config = row_config(name)
    released = replace(config, **FIDELITY["released"])
    write_run(runs / "f30k_precomp/a", config, 455.0)
    capped = {"features": {**F30K_SHAPES, "dev": [1_000, 36, 2048]}}
    write_run(runs / "f30k_precomp/b", released, 460.0, **capped)
    write_run(runs / "f30k_precomp/mixed", replace(config, captions="bytes"), 400.0)
    files = runs.parent / "evaluations/f30k_precomp"
    member = {"file": "model_best.pth.tar", "sha256": "0"}
    scored = {"features": {"test": F30K_SHAPES["test"]}, "members": [member], "files": {}}
    write_run(files, released, 460.7, file="one.json", **scored)
    write_run(files, replace(config, siblings="negatives", twins="negatives"), 450.0, file="two.json", **scored)
    write_run(files, replace(released, captions="bytes_glued"), 440.0, file="mixed.json", **scored)
    write_run(files, released, 470.0, file="ensemble.json", **scored | {"members": [member, member]})
    text = publish_comparison()
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| {name} |")]
    assert [(line[4], line[5].split(" · ")[2]) for line in lines] == [
        ("trained here, corrected", "455.0"), ("trained here, released", "460.0"),
        ("released checkpoint, corrected", "450.0"), ("released checkpoint, released", "460.7"),
    ]  # fmt: skip
    assert lines[-1][6:] == ["+0.0", "reproduced within 1.0 (one seed)"]
    assert f"- {name}, released checkpoint, released: model_best.pth.tar\n" in text


def test_what_was_changed_since_is_left_out(runs):
    folder = write_run(runs / "f30k_precomp/a", row_config("f30k_triplet_i2t_avg"), 452.2)
    text = (folder / "results.json").read_text()
    (folder / "results.json").write_text(text.replace('"rsum": 452.2', '"rsum": 999.0'))
    old = write_run(runs / "f30k_precomp/b", row_config("f30k_triplet_i2t_avg"), 452.2)
    (old / "config.json").write_text("{}")
    unknown = {"config": {**row_config("f30k_triplet_i2t_avg").to_dict(), "embed_sise": 1}}
    write_run(runs / "f30k_precomp/c", row_config("f30k_triplet_i2t_avg"), 452.2, **unknown)
    said = []
    assert cells("f30k_triplet_i2t_avg", publish_comparison(said.append))[0] == "–"
    assert [line.partition(":")[0] for line in said] == ["a", "b", "c"]
    assert all("left out of the comparison (" in line for line in said)
