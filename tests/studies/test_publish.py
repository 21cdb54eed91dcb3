"""What is published: whole studies with the preset's settings, numbers alone of data that may not be passed on."""

import shutil
import sys
from dataclasses import replace

import pytest

from tests.made import altered, write_run, write_study
from uwml_lib.config import preset
from uwml_lib.reports.tables import COLUMNS
from uwml_lib.runs import load_study, save_study
from uwml_lib.runs.scoring import evaluation_file
from uwml_lib.studies import STUDIES, publish
from uwml_lib.studies.publish import publish as publish_studies
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, sha256_of, write_json, write_sealed_json


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A whole `make reproduce` on disk, whose settings are the preset's by and by, and no notebook."""
    for name in ("RUNS", "REPORTS", "REFERENCE", "EVALUATIONS"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    monkeypatch.setattr(paths, "RELIABILITY", tmp_path / "reference" / "reliability.json")
    monkeypatch.setattr(publish, "report_folder", lambda dataset: tmp_path / "report")
    monkeypatch.setattr(publish, "paths_of", lambda study, dataset: [])
    monkeypatch.setattr(publish, "execute", first_page)
    (tmp_path / "report/figures").mkdir(parents=True)
    return write_study((0, 1))


def first_page(notebook, parameters, folder, inputs, say):
    """In place of the notebook that shows what is published."""
    path = folder / notebook.name
    path.write_text((paths.REFERENCE / "findings.json").read_text())
    return path


def as_preset(monkeypatch):
    monkeypatch.setattr(publish, "preset", lambda dataset: preset("scenes", warmup_epochs=1, epochs=2))


def test_only_a_whole_study_is_published(study, monkeypatch):
    with pytest.raises(UWMLError, match="not a run to publish, for it differs from the preset in epochs"):
        publish_studies("scenes", STUDIES)
    as_preset(monkeypatch)
    monkeypatch.setattr(publish, "paths_of", lambda study, dataset: [paths.NOTEBOOKS / "01_data_preparation.ipynb"])
    with pytest.raises(UWMLError, match="01_data_preparation.ipynb: missing, or shows other runs"):
        publish_studies("scenes", STUDIES)


def test_publishing_keeps_what_the_attacks_found_and_links_the_runs(study, tmp_path, monkeypatch):
    as_preset(monkeypatch)
    reference = tmp_path / "reference"
    names = [run.folder.name for run in study.all_runs]
    noted = {"compare": {"seconds": {}, "runs": ["of something else"]}, "reproduce": {"seconds": {}, "runs": names[:2]}}
    write_json(tmp_path / "report/durations.json", noted)
    (reference / "old").mkdir(parents=True)
    write_json(reference / "reliability.json", {"kills": 3})
    begun = reference / "photographs/sweeps/alike-triplet/journal.log"
    begun.parent.mkdir(parents=True)
    begun.touch()
    publish_studies("scenes", STUDIES)
    assert begun.exists(), "what was begun on other data is kept"
    shown = (reference / "notebooks/00_start_here.ipynb").read_text()
    assert shown == (reference / "findings.json").read_text(), "the first page shows what is published now"
    assert read_json(reference / "reliability.json") == {"kills": 3}
    assert not (reference / "old").exists()
    assert list(read_json(reference / "durations.json")) == ["reproduce"]
    table = (reference / "table.md").read_text()
    for run in study.all_runs:
        assert f"[{run.folder.name}](runs/{run.folder.name})" in table
        assert sha256_of(reference / "runs" / run.folder.name / "results.json")[:12] in table


def test_publishing_that_was_killed_is_not_in_its_own_way(study, tmp_path, monkeypatch):
    """The first page, which is executed last, is still there for the next attempt."""
    as_preset(monkeypatch)
    first = tmp_path / "report/00_start_here.ipynb"
    first.write_text("as it was")
    monkeypatch.setattr(publish, "execute", lambda *arguments: sys.exit("killed"))
    with pytest.raises(SystemExit):
        publish_studies("scenes", STUDIES)
    assert first.read_text() == "as it was"


def test_a_table_with_ensembles_can_be_made_anew(study, tmp_path, monkeypatch):
    """Of what is published alone: an ensemble's scores are in no run folder."""
    runs = [
        write_run(paths.RUNS / f"scenes/{loss}-{direction}", loss, 0, quality, direction=direction)
        for loss, quality in (("triplet", 1.5), ("polynomial", 2.5))
        for direction in ("i2t", "t2i")
    ]
    models = save_study("scenes", "models", {"runs": runs})
    for one, other in models.scan_pairs():
        names = [one.folder.name, other.folder.name]
        both = {**one.results, "members": [{"run": name} for name in names]}
        write_sealed_json(evaluation_file("scenes", names, "test"), both)
    publish_studies("scenes", {"models": STUDIES["models"]})
    reference = tmp_path / "reference"
    table = (reference / "models.md").read_text()
    assert "| SCAN, ensemble " in table
    shutil.rmtree(tmp_path / "runs")
    shutil.rmtree(tmp_path / "evaluations")
    for kind, place in {"runs": "runs", "evaluations": "evaluations", "studies": "runs"}.items():
        shutil.copytree(reference / kind, tmp_path / place / "scenes", dirs_exist_ok=True)
    assert STUDIES["models"].report(load_study("scenes", "models")).with_runs() == table


def test_numbers_alone_of_data_that_may_not_be_passed_on(study, tmp_path, monkeypatch):
    """Neither pictures nor captions; beside the published run on scenes, which stays."""
    as_preset(monkeypatch)
    other = replace(altered(study), dataset="f8k_precomp")
    monkeypatch.setattr(publish, "load_study", lambda dataset, name: other)
    monkeypatch.setattr("uwml_lib.support.paths.report_folder", lambda dataset: tmp_path / "report")
    write_json(tmp_path / "reference/summary.json", {"dataset": "scenes"})
    metrics = {name: 10.0 for name in COLUMNS}
    nothing = [0.0] * len(other.runs[0].rsum_by_image)
    write_json(
        tmp_path / "report/linear_cca.json",
        {"split": "test", "images": {"train": 90}, "metrics": metrics, "rsum_by_image": nothing},
    )
    for name in ("recall_curves.png", "best_retrievals.png"):
        (tmp_path / "report/figures" / name).write_bytes(b"png")
    for _ in range(2):
        publish_studies("f8k_precomp", {"reproduce": STUDIES["reproduce"]})
        write_json(tmp_path / "reference/f8k/pilot/noted.json", {})
    folder = tmp_path / "reference/f8k"
    assert sorted(path.name for path in folder.iterdir()) == [
        "findings.json", "linear_cca.json", "pilot", "recall_curves.png", "runs", "summary.json", "table.md",
    ]  # fmt: skip
    said, _ = read_json(folder / "findings.json")["reproduce"]["findings"]
    assert said.startswith("On f8k_precomp (40 test images, SCAN, i2t Mean): triplet ")
    assert {path.name for path in (folder / "runs").iterdir()} == {run.folder.name for run in study.all_runs}
    assert read_json(tmp_path / "reference/summary.json") == {"dataset": "scenes"}
