"""A model to look at: that of a study, or one that is trained for a moment."""

import pytest

from tests.made import write_study
from tests.tiny import write_tiny
from uwml_lib.runs import load_study
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.training import model_to_look_at, short


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")


def test_without_a_run_one_is_trained_for_a_moment_and_not_kept(tmp_path):
    folder = write_tiny(tmp_path / "data" / "tiny")
    looked = model_to_look_at(folder.name, str(folder.parent), "triplet", max_images=12)
    assert "2 epochs on 12 images, for `make reproduce` has not been run" in looked.source
    assert (looked.config.loss, looked.config.max_images, looked.config.epochs) == ("triplet", 12, 2)
    assert not looked.model.training and len(looked.vocabulary) > 4
    assert not paths.RUNS.exists()


def test_with_a_study_it_is_that_of_the_first_seed(monkeypatch):
    study = write_study((1, 0))
    monkeypatch.setattr(short, "load_model", lambda folder, data_root: (folder, data_root, None))
    run = load_study(study.dataset).by_loss()["triplet"][0]
    folder, data_root, _, source = model_to_look_at(study.dataset, "/elsewhere", "triplet")
    assert (folder, data_root, run.seed) == (run.folder, "/elsewhere", 0)
    assert source.startswith(f"{run.folder.name}, which `make reproduce` trained for ")


def test_a_run_that_cannot_be_read_is_not_passed_over():
    study = write_study((0,))
    with pytest.raises(UWMLError, match=r"no such file"):
        model_to_look_at(study.dataset, loss="triplet")
