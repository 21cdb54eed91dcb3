"""Studies on a small data set of one's own: a batch that fits, settings for every training, errors said once."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.made import write_run
from tests.tiny import write_tiny
from uwml_lib.config import StudyOptions, preset
from uwml_lib.studies import STUDIES, engine, notebooks, run_study, side_by_side
from uwml_lib.studies import study as study_module
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.training import with_batch_that_fits
from uwml_lib.training.trainer import Diverged

STRANGE = "a #1 <i>'&%20|{x} é"


class Planned(Exception):
    """Stops a study once its trainings are known."""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with two data sets, of 80 training captions and of 10; reports go to another beside it."""
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(engine, "report_folder", lambda dataset: tmp_path / "reports" / dataset)
    write_tiny(tmp_path / "tiny")
    write_tiny(tmp_path / "tinier", {"train": 5, "dev": 5})
    return tmp_path


def planned(monkeypatch, study, options):
    """What a study would train, and what it said before."""
    found, said = [], []

    def stop(configs, say, finished):
        found.extend(configs)
        raise Planned

    monkeypatch.setattr(study_module, "train_all", stop)
    with pytest.raises(Planned):
        run_study(STUDIES[study], options, said.append)
    return found, [line for line in said if "batch_size" in line]


def test_a_small_data_set_gets_a_batch_that_fits_and_the_settings_given(root, monkeypatch):
    options = StudyOptions("tiny", str(root), others={"embed_size": 64, "warmup_epochs": 3})
    configs, said = planned(monkeypatch, "reproduce", options)
    assert {(each.batch_size, each.embed_size, each.warmup_epochs) for each in configs} == {(16, 64, 3)}
    assert len(configs) == 2 * len(STUDIES["reproduce"].seeds)
    expected = (
        "batch_size: 16 instead of 128, for tiny has no more than 80 training captions; --batch-size sets another"
    )
    assert said == [expected]
    given, said = planned(monkeypatch, "reproduce", replace(options, others={"batch_size": 40}))
    assert ({each.batch_size for each in given}, said) == ({40}, [])
    names = {each.run_name("x") for each in (*configs, *given)}
    assert len(names) == len(configs) + len(given)  # other settings are other runs


@pytest.mark.parametrize(("dataset", "usual", "fits"), [("tiny", 80, 80), ("tiny", 81, 16), ("tinier", 64, 2)])
def test_only_a_batch_that_the_data_cannot_fill_is_changed(root, dataset, usual, fits):
    config = preset(dataset, data_root=str(root), batch_size=usual)
    assert with_batch_that_fits(config, lambda line: None) == replace(config, batch_size=fits)


@pytest.mark.parametrize(
    ("study", "settings", "message"),
    [
        ("reproduce", {"batch_size": 81}, "batch_size: found 81, expected at most the 80 training captions"),
        ("reproduce", {"selection_images": 40}, "selection_images: found 40, expected fewer than the 40 training imag"),
        ("models", {"direction": "t2i"}, "direction: found 't2i', expected none, for `uwml models` compares several"),
        ("models", {"model": "vse"}, "model: found 'vse', expected none, for `uwml models` compares several"),
        ("fidelity", {"siblings": "negatives"}, "siblings: found 'negatives', expected none, for `uwml fidelity`"),
    ],
)
def test_what_cannot_be_set_is_said_once_and_before_any_training(root, monkeypatch, study, settings, message):
    monkeypatch.setattr(study_module, "train_all", lambda *arguments: pytest.fail("trained"))
    with pytest.raises(UWMLError) as error:
        run_study(STUDIES[study], StudyOptions("tiny", str(root), others=settings), lambda line: None)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_an_error_of_all_trainings_is_said_once(root, monkeypatch):
    def train(config, folder):
        raise UWMLError(f"{folder.name}: {'no luck' if config.seed else 'no room'}")

    monkeypatch.setattr(side_by_side, "ProcessPoolExecutor", lambda count, *others: ThreadPoolExecutor(count))
    monkeypatch.setattr(side_by_side, "train", train)
    configs = [preset("tiny", data_root=str(root), seed=seed) for seed in (0, 1, 2)]
    names = [folder.name for folder in side_by_side.run_folders(configs)]
    with pytest.raises(UWMLError) as error:
        side_by_side.train_all(configs, lambda line: None)
    count, *lines = str(error.value).splitlines()
    assert count == "3 of 3 trainings failed; the others are kept:"
    assert {(*line.partition(": ")[0].split(", "), line.partition(": ")[2]) for line in lines} & {
        (names[1], names[2], "no luck"), (names[2], names[1], "no luck"),
    }  # fmt: skip
    assert f"{names[0]}: no room" in lines
    assert len(lines) == 2


def test_what_was_finished_before_is_kept_too_and_trainings_that_diverge_are_told_from_others(root, monkeypatch):
    """A kill may have come between the end of a training and its copy."""
    kept, raised = [], []

    def train(config, folder):
        if config.seed:
            raise raised[0]("no more")
        write_run(folder, config.loss, config.seed, 1.0)
        return folder

    monkeypatch.setattr(side_by_side, "ProcessPoolExecutor", lambda count, *others: ThreadPoolExecutor(count))
    monkeypatch.setattr(side_by_side, "train", train)
    configs = [preset("tiny", data_root=str(root), seed=seed) for seed in (0, 1)]
    folders = side_by_side.run_folders(configs)
    for kind in (Diverged, UWMLError):
        raised[:] = [kind]
        with pytest.raises(UWMLError, match=r"1 of [12] trainings? failed") as error:
            side_by_side.train_all(configs, lambda line: None, kept.append)
        assert error.type is kind
    assert kept == [folders[0], folders[0]]


def test_a_notebook_is_executed_into_the_folder_of_a_strange_name(tmp_path, monkeypatch):
    def as_papermill_does(notebook, part, parameters, **options):
        shutil.copy(notebook.format(**parameters), part.format(**parameters))

    monkeypatch.setattr(notebooks.papermill, "execute_notebook", as_papermill_does)
    folder = tmp_path / STRANGE
    notebook = paths.NOTEBOOKS / "01_data_preparation.ipynb"
    assert notebooks.execute(notebook, {"DATASET": STRANGE}, folder, "x", lambda line: None).exists()
    assert [path.name for path in folder.iterdir()] == [notebook.name]
