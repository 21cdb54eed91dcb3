"""The studies in smoke size, each once: the main job as `make smoke` runs it, the others among the slow tests.

What each notebook found is tested by name.
"""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest

from tests.command_line import COMMAND, uwml
from tests.notebooks.conftest import REPRODUCE
from uwml_lib.cli import parse
from uwml_lib.config import StudyOptions
from uwml_lib.datasets import available_tokenizer, fingerprint
from uwml_lib.evaluation import chance_rsum
from uwml_lib.losses import LOSSES
from uwml_lib.models import MODELS
from uwml_lib.released.published import ROWS
from uwml_lib.studies import STUDIES
from uwml_lib.studies.course import COURSE
from uwml_lib.studies.engine import base_config
from uwml_lib.studies.models import MODELS_OF_IMAGES, MODELS_OF_SEQUENCES
from uwml_lib.studies.study import Request
from uwml_lib.support.paths import NOTEBOOKS

NAMES = STUDIES["reproduce"].notebooks
FIXTURES = {
    "reproduce": "smoke",
    "compare": "compared",
    "fidelity": "faithful",
    "models": "modelled",
    "videos": "filmed",
}
every_notebook = pytest.mark.parametrize(
    ("name", "home"),
    [
        pytest.param(name, FIXTURES[study.name], id=name, marks=[pytest.mark.slow] * (study.name != "reproduce"))
        for study in STUDIES.values()
        for name in study.notebooks
    ],
    indirect=["home"],
)


@pytest.fixture
def home(request) -> Path:
    """The folder in which a study has run, by the name of its fixture."""
    return request.getfixturevalue(request.param)[0]


def found(home: Path, notebook: str) -> dict:
    return json.loads((home / "reports" / "scenes_smoke" / "metrics" / f"{notebook}.json").read_text())


def test_prints_the_table_and_where_the_report_is(smoke):
    home, log = smoke
    assert "| triplet" in log
    assert "| polynomial" in log
    assert "Verdict" in log
    assert str(home / "reports" / "index.html") in log
    assert "Traceback" not in log
    assert "Warning" not in log


def test_00_has_the_published_numbers_and_says_where_nothing_is_published(smoke):
    metrics = found(smoke[0], "00_start_here")
    named = {name: ROWS[f"f30k_{row}"].metrics["rsum"] for name, row in {
        "claimed_rsum": "polynomial_i2t_avg", "baseline_rsum": "triplet_i2t_avg",
        "retrained_rsum": "triplet_i2t_avg_retrained",
    }.items()}  # fmt: skip
    assert {name: metrics[name] for name in named} == named
    assert metrics["standard_deviations"] == pytest.approx(6.33, abs=0.01)
    assert metrics["informative_images"] == 3
    assert metrics["sentences"] == 0
    copy = copy_of(smoke[0], "00_start_here").read_text()
    assert "No results are published here" in copy
    for lesson in COURSE:
        assert lesson.question in copy


def test_01_finds_the_data(smoke):
    metrics = found(smoke[0], "01_data_preparation")
    assert metrics["train_images"] == 160
    assert 40 < metrics["vocabulary_size"] < 150
    assert 0 <= metrics["repeated_captions_percent"] < 60
    assert metrics["siblings_in_a_batch"] == pytest.approx(metrics["siblings_expected"], abs=0.4)
    assert metrics["siblings_without_duplicates"] == 0
    assert metrics["optimism_of_twelve"] > 5  # of 40 images


def test_02_trains_live_and_reads_the_runs(smoke):
    metrics = found(smoke[0], "02_training")
    live = metrics["live_dev_rsum"]
    assert live["with warm-up"] > live["without"] + 50 > 100  # chance is 77
    assert set(metrics["live_state"]) == {"untrained", "with warm-up", "without"}
    assert metrics["live_state"]["without"] == "collapsed" != metrics["live_state"]["with warm-up"]
    assert metrics["from_weights_agrees"] is True
    assert 0 < metrics["siblings_per_batch"] < 2 * metrics["siblings_expected"]
    assert metrics["runs_looked_at"] == 6  # all seeds of both losses, and two without warm-up
    assert metrics["runs_collapsed"] < 6
    assert set(metrics["levels"]) == {f"{loss} {seed}" for loss in ("triplet", "polynomial") for seed in (0, 1)}
    assert metrics["cut_percent"]["triplet"] > 90 > metrics["cut_percent"]["polynomial"]
    assert metrics["triplet_dev_rsum"] > 90  # chance is 77


def test_03_scores_by_hand_as_the_library_does(smoke):
    metrics = found(smoke[0], "03_cross_attention")
    assert -1 < metrics["score"] < 1
    assert metrics["largest_difference_cheap"] < 1e-5 < metrics["largest_change_without_mask"]
    assert metrics["entropy_falls"]
    assert metrics["sum_to_mean"] == pytest.approx(metrics["regions"]) == pytest.approx(12)
    assert metrics["mebibytes_of_attended_vectors"] == 2304
    assert metrics["direct_over_cheap"] > 0


def test_03_scores_as_the_run_did(smoke):
    metrics = found(smoke[0], "04_evaluation")
    assert abs(metrics["rsum_difference_to_run"]) < 1e-9
    assert metrics["chance_rsum"] == pytest.approx(77.3, abs=0.1)
    recalls = [value for name, value in metrics.items() if "recall_at" in name]
    assert len(recalls) == 6
    assert sum(recalls) == pytest.approx(metrics["rsum"])
    by_folds = metrics["rsum_by_folds"]
    assert by_folds["1"] == pytest.approx(metrics["rsum"])
    assert by_folds["1"] < by_folds["5"] < by_folds["10"]
    assert metrics["published_method_in_deviations"] == pytest.approx(6.33, abs=0.01)
    assert metrics["published_baseline_in_deviations"] == pytest.approx(2.29, abs=0.01)


def test_05_agrees_with_the_closed_form(smoke):
    metrics = found(smoke[0], "05_weight_functions")
    assert metrics["largest_closed_form_difference"] < 1e-12
    assert metrics["dead_zone_from"] == pytest.approx(0.0955, abs=1e-4)
    assert metrics["dead_zone_to"] == pytest.approx(0.3489, abs=1e-4)
    assert metrics["losses_drawn"] == len(LOSSES)
    assert metrics["pairs_with_weight"] > 10
    assert metrics["trained_losses"] == "triplet polynomial"
    assert metrics["trained_models"] == 4


def test_05_measures_what_released_coefficients_do_to_low_scores(smoke):
    metrics = found(smoke[0], "05_weight_functions")
    assert metrics["moved_in_dead_zone"] == 0
    assert metrics["moved_far_below"] > 0.3 > 0 > metrics["moved_far_below_fitted"]
    assert metrics["lowest_share_far_below"] < metrics["first_share_far_below"] - 10


def test_06_has_a_card_for_every_loss(smoke):
    metrics = found(smoke[0], "06_twelve_losses")
    assert metrics["losses"] == len(LOSSES)
    assert metrics["cards"] == len(LOSSES) + 1  # triplet_soft at two scales
    of_gap = {"triplet", "triplet_all", "triplet_semihard", "triplet_soft", "infonce", "polynomial_relative"}
    assert set(metrics["gap_alone"].split()) == of_gap
    assert metrics["by_itself"] == "sigmoid"
    assert metrics["level_polynomial"] == pytest.approx(0.5, abs=1e-4)
    assert metrics["level_public_variant"] == pytest.approx(1 / 2.8, abs=1e-4)
    assert metrics["bump_at"] == pytest.approx(-0.38, abs=0.011)


def test_10_trains_heads(smoke):
    metrics = found(smoke[0], "12_your_own_model")
    assert metrics["images"] == 240  # all splits of the data set, each for what it is for
    assert set(metrics["rsums"]) == {"triplet", "polynomial, released", "polynomial, fitted"}
    assert metrics["chosen"].removesuffix(" at three times the rate") in metrics["rsums"]
    assert metrics["rsums_at_three_times_the_rate"].keys() == metrics["rsums"].keys()
    assert min(metrics["rsums"].values()) > 100  # chance is 77
    assert set(metrics["fitted_minus"]) == {"triplet", "polynomial, released"}


def test_10_works_on_the_files_of_a_stranger(tmp_path, monkeypatch):
    """Of other widths, with one caption an image, and in another folder than the notebook's."""
    generator = np.random.default_rng(0)
    meaning = generator.normal(size=(60, 4))
    for name, width in (("pictures", 12), ("sentences", 7)):
        np.save(tmp_path / f"{name}.npy", meaning @ generator.normal(size=(4, width)))
    monkeypatch.setenv("UWML_HOME", str(tmp_path))
    parameters = {"IMAGES": str(tmp_path / "pictures.npy"), "CAPTIONS": str(tmp_path / "sentences.npy"), "SEEDS": 1}
    papermill.execute_notebook(
        NOTEBOOKS / "12_your_own_model.ipynb", tmp_path / "out.ipynb", parameters, kernel_name="python3",
        cwd=str(tmp_path), progress_bar=False,
    )  # fmt: skip
    metrics = json.loads(next(tmp_path.rglob("12_your_own_model.json")).read_text())
    assert metrics["images"] == 60
    assert max(metrics["rsums"].values()) > 300  # of 600; chance is 89 for twelve images


def test_13_goes_from_pictures_to_a_table(smoke):
    metrics = found(smoke[0], "13_your_own_photographs")
    assert metrics["images"] == 300
    assert metrics["chance_rsum"] == pytest.approx(chance_rsum(60, 3))
    assert set(metrics["rsums"]) == {"triplet", "polynomial", "fitted"}
    for rsums in metrics["rsums"].values():
        assert len(rsums) == 1  # where there is little time
        assert np.mean(rsums) > metrics["chance_rsum"] + 100
    assert metrics["best_found_rank"] <= 3
    shown = nbformat.writes(nbformat.read(copy_of(smoke[0], "13_your_own_photographs"), as_version=4))
    assert "'0O1.png'" in shown  # the misspelt name
    assert "003.png: not readable as an image" in shown
    assert "Warning: test: images nearly equal to one in train" in shown


def test_every_command_of_13_is_one(smoke):
    """What stands behind a dollar sign is what a shell takes."""
    cells = nbformat.read(copy_of(smoke[0], "13_your_own_photographs"), as_version=4).cells
    printed = "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))
    commands = [shlex.split(line)[2:] for line in printed.splitlines() if line.startswith("$ uwml ")]
    assert {words[0] for words in commands} == {"pictures", "data", "train", "evaluate", "search"}
    for command, *words in commands:
        assert parse(command, words)


def test_05_compares_every_loss(compared):
    home, log = compared
    metrics = found(home, "07_loss_comparison")
    assert metrics["losses"] == len(LOSSES) + 1  # one with fitted coefficients
    assert metrics["pairs"] == math.comb(metrics["losses"], 2)
    assert metrics["pairs_that_differ"] == 0  # of one seed nothing can be said
    assert len(metrics["unbeaten"].split()) == metrics["losses"]
    of_gaps = {"infonce", "polynomial_relative", "triplet", "triplet_all", "triplet_semihard", "triplet_soft"}
    assert set(metrics["gap_alone"].split()) == of_gaps
    assert metrics["triplet_on_hardest_percent"] == 100
    assert 0 < metrics["infonce_on_hardest_percent"] < 100
    assert {f"{loss}_dev_rsum" for loss in LOSSES} <= set(metrics)
    for loss in LOSSES:
        assert f"| {loss} " in log
    assert "Traceback" not in log
    assert "Warning" not in log


def test_06_trains_models_on_with_coefficients_that_fit(compared):
    metrics = found(compared[0], "08_choosing_coefficients")
    assert metrics["models"] == 1
    assert metrics["warnings_proposed"] == 0
    assert 0 <= metrics["wrong_way_or_idle"] <= 100
    ways = ("start", "own_loss", "released_coefficients", "fitted_coefficients", "released", "fitted")
    assert min(metrics[f"{way}_rsum"] for way in ways) > 50
    assert 0 <= metrics["models_that_lost"] <= 1
    assert "| fitted coefficients " in compared[1]


def test_07_measures_the_habits_of_the_release(faithful):
    home, log = faithful
    metrics = found(home, "09_fidelity")
    assert metrics["siblings_flickr30k"] == pytest.approx(0.45, abs=0.005)
    assert metrics["precision_difference"] < 1e-5
    assert metrics["rsum_float32"] == pytest.approx(metrics["rsum_of_run"])
    assert "| siblings as negatives " in log
    assert ("| captions as bytes " in log) == (available_tokenizer() == "punkt")
    assert metrics["habits"] == (3 if available_tokenizer() == "punkt" else 1)
    if metrics["habits"] == 3:
        assert metrics["unknown_bytes_percent"] > metrics["unknown_text_percent"]
        assert "| all four " in log
    assert "Traceback" not in log
    assert 0 <= metrics["sibling_is_hardest_of_caption"] <= 1
    assert metrics["rsum_of_folds"] > metrics["rsum_of_run"]  # of fewer candidates
    assert "1 of " in log  # the run without habits is that of the pipeline


def test_08_compares_every_model(modelled):
    home, log = modelled
    metrics = found(home, "10_other_models")
    assert {MODELS[settings["model"]] for settings in MODELS_OF_IMAGES} == set(MODELS.values())
    assert metrics["models"] == len(MODELS_OF_IMAGES) + 1  # SCAN's ensemble
    for model in MODELS.values():
        assert f"| {model.title}" in log
    assert "| SCAN, ensemble, dense form " in log  # smoke runs are of one epoch, which is warm-up
    assert "finished before: 2 of 16 runs" in log  # those of the pipeline
    assert metrics["processes"][0] == pytest.approx(metrics["processes"][1], abs=5)
    assert min(metrics["processes"]) > 2 * chance_rsum(40, 5)  # else they would agree whatever was trained
    assert min(metrics["rsums"].values()) > 50
    assert "Traceback" not in log


def test_09_knows_the_order_only_where_a_model_does(filmed):
    home, log = filmed
    metrics = json.loads((home / "reports/clips_smoke/metrics/11_video_text.json").read_text())
    assert metrics["clips"] == 40
    assert metrics["models"] == len(MODELS_OF_SEQUENCES)
    preferred = metrics["prefers_forwards"]
    assert set(preferred.pop(MODELS["dual_encoding"].title + ", dense form")) != {50}
    assert {value for found in preferred.values() for value in found} == {50}
    assert metrics["asked"] > 30
    assert len(metrics["right_order"]) == 2 * len(MODELS_OF_SEQUENCES)
    assert all(20 < share < 80 for share in metrics["right_order"].values())  # of a model that has learnt little
    assert "Traceback" not in log


def test_videos_are_reported_and_published_where_they_are_all_there_is(filmed):
    home, _ = filmed
    result = uwml(home, "report", "--publish", "--dataset", "clips_smoke")
    assert result.returncode == 0, result.stderr
    published = home / "reports/reference/clips_smoke"
    assert result.stdout.strip() in (published / "videos.md").read_text()
    assert (published / "notebooks/11_video_text.ipynb").exists()
    assert len(list(published.glob("runs/*/results.json"))) == 2 * len(MODELS_OF_SEQUENCES)


@pytest.mark.parametrize(
    ("command", "dataset", "words"),
    [
        (
            "reproduce",
            "clips_smoke",
            "has items of unequal numbers of regions, which are for `make videos DATASET=clip",
        ),
        ("videos", "scenes_smoke", "has items of equal numbers of regions, which are for `make reproduce DATASET=sc"),
    ],
)
def test_images_and_videos_are_told_apart(smoke, filmed, command, dataset, words):
    result = uwml(smoke[0], command, "--dataset", dataset)
    assert result.returncode == 1
    assert words in result.stderr


def copy_of(home: Path, name: str) -> Path:
    """Where the executed copy of a notebook is."""
    return home / "reports" / ("clips_smoke" if name == "11_video_text" else "scenes_smoke") / f"{name}.ipynb"


@every_notebook
def test_executed_copy_is_fit_to_read(home, name):
    notebook = nbformat.read(copy_of(home, name), as_version=4)
    assert str(home) not in nbformat.writes(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", output["text"]  # warnings, frozen bars
            assert "image/png" not in output.get("data", {}) or output["metadata"]["image/png"]["alt"]


@every_notebook
def test_page_needs_no_network(home, name):
    page = home / "reports/pages/course" / f"{name}.html"
    fetched = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="([^"]+)"', page.read_text(encoding="utf-8"))
    for target in fetched:
        assert (page.parent / target.partition("?")[0]).exists(), target


def test_second_call_does_no_work_twice(smoke):
    home, _ = smoke
    kept = {path: path.stat().st_mtime_ns for path in (home / "reports" / "runs").rglob("*.json*")}
    again = uwml(home, *REPRODUCE)
    assert again.returncode == 0, again.stderr
    assert "finished before: 6 of 6 runs" in again.stdout
    assert again.stdout.count("executed before") == len(NAMES)
    for path, changed in kept.items():
        assert path.name == "reproduce.json" or path.stat().st_mtime_ns == changed, path


def test_evaluate_and_report_use_what_is_there(smoke):
    home, _ = smoke
    run = next((home / "reports" / "runs" / "scenes_smoke").glob("triplet-seed0-*[!k]"))
    before = json.loads((run / "results.json").read_text())["metrics"]
    evaluated = uwml(home, "evaluate", str(run))
    assert evaluated.returncode == 0, evaluated.stderr
    assert f"rsum {before['rsum']:.1f}" in evaluated.stdout
    assert json.loads((run / "results.json").read_text())["metrics"] == before
    report = uwml(home, "report", "--dataset", "scenes_smoke")
    assert report.returncode == 0, report.stderr
    assert "Verdict" in report.stdout


def first_images(source: Path, folder: Path, images: dict[str, int]) -> None:
    """Write a data set of the first images of each split of another one."""
    folder.mkdir(parents=True)
    for split, n in images.items():
        features = np.load(source / f"{split}_ims.npy", mmap_mode="r")
        np.save(folder / f"{split}_ims.npy", features[:n])
        for kind in ("caps", "ids"):
            lines = (source / f"{split}_{kind}.txt").read_text(encoding="utf-8").splitlines(keepends=True)
            kept = lines[: n * len(lines) // len(features)]
            (folder / f"{split}_{kind}.txt").write_text("".join(kept), encoding="utf-8")


@pytest.mark.slow
def test_real_features_without_a_test_split(shared, tmp_path):
    first_images(shared / "data/f8k_precomp", tmp_path / "data/f8k_precomp", {"train": 600, "dev": 200})
    arguments = ("--dataset", "f8k_precomp", "--profile", "smoke", "--seeds", "0")
    result = uwml(tmp_path, "reproduce", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "loss (dev split)" in result.stdout
    assert "These data have no test split" in result.stdout
    assert "one seed says nothing about the spread" in result.stdout
    notebook = (tmp_path / "reports" / "f8k_precomp" / "04_evaluation.ipynb").read_text()
    assert "comes without pictures" in notebook
    assert "all below is measured on dev" in notebook


def test_failed_training_keeps_the_others_and_says_which(tmp_path):
    """One training of two cannot write its folder; the other is finished and kept."""
    home = tmp_path / "home"
    arguments = ("--dataset", "scenes_smoke", "--seeds", "0", "--epochs", "1")
    blocked = home / "reports" / "runs" / "scenes_smoke"
    assert uwml(home, "data", "--dataset", "scenes_smoke").returncode == 0
    base = base_config(StudyOptions("scenes_smoke", str(home / "data"), epochs=1))
    configs = STUDIES["reproduce"].plan(Request(base, [0], False, print))["runs"]
    names = [config.run_name(fingerprint(config.data_folder)) for config in configs]
    blocked.mkdir(parents=True)
    (blocked / names[0]).write_text("a file where the run's folder should be")
    result = uwml(home, "reproduce", *arguments)
    assert result.returncode == 1
    assert names[0] in result.stderr
    assert "the others are kept" in result.stderr
    assert "Traceback" not in result.stderr
    assert (blocked / names[1] / "results.json").exists()


@pytest.mark.slow
def test_trainings_end_with_the_pipeline_that_started_them(smoke, tmp_path):
    (tmp_path / "data").symlink_to(smoke[0] / "data")
    process = subprocess.Popen(
        [*COMMAND, *REPRODUCE, "--epochs", "500"],
        env={**os.environ, "UWML_HOME": str(tmp_path)}, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(lambda: list(tmp_path.glob("reports/runs/scenes_smoke/*/checkpoint/last.pt")))
        process.kill()
        process.wait()
        wait_until(lambda: not group_is_alive(process.pid))
    finally:
        if group_is_alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def group_is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(happened, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)
