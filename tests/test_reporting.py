"""Tables and sentences from run folders written by the test."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from tests import torture
from uwml_lib import plots, reporting, site
from uwml_lib.config import ExperimentConfig, preset
from uwml_lib.errors import UWMLError
from uwml_lib.evaluation import retrieval_metrics
from uwml_lib.files import read_json, sha256_of, write_json, write_sealed_json
from uwml_lib.reporting import (
    COLUMNS,
    agreement_with_reference,
    chance_rsum,
    comparison,
    load_experiment,
    report_text,
    results_table,
    run_table,
    save_experiment,
    summary_json,
    warmup_effect,
)

N_IMAGES, K = 40, 5


def write_run(folder, loss, seed, quality, warmup_epochs=1):
    """A finished run whose true pairs score `quality` above the noise."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(N_IMAGES, N_IMAGES * K))
    scores += quality * np.repeat(np.eye(N_IMAGES), K, axis=1)
    metrics = retrieval_metrics(scores, K, return_ranks=True)
    ranks = {name: metrics.pop(name).tolist() for name in list(metrics) if name.endswith("ranks")}
    config = preset("scenes", loss=loss, seed=seed, warmup_epochs=warmup_epochs, epochs=2).to_dict()
    results = {
        "config": config, "split": "test", "captions_per_image": K, "metrics": metrics, "ranks": ranks,
        "best_epoch": 2, "dev_rsum": 100.0 + seed, "training_seconds": 60.0 + seed,
        "provenance": {"sessions": [{"commit": "abc" * 5, "clean_tree": True}]},
    }  # fmt: skip
    records = [
        {"kind": "step", "epoch": epoch, "step": step, "warmup": epoch < warmup_epochs, "loss": 9.0}
        | {"positive_score": 0.5, "hardest_negative_score": 0.4}
        for epoch in range(2)
        for step in (1, 2)
    ] + [{"kind": "epoch", "epoch": epoch, "dev_rsum": 100.0 + epoch, "seconds": 30.0} for epoch in range(2)]
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    write_json(folder / "config.json", {"config": config})
    files = {name: sha256_of(folder / name) for name in ("config.json", "metrics.jsonl")}
    write_sealed_json(folder / "results.json", {**results, "files": files})
    return folder


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, "RUNS", tmp_path)
    monkeypatch.setattr(reporting, "REFERENCE", tmp_path / "reference")
    runs = [
        write_run(tmp_path / "scenes" / f"{loss}-seed{seed}", loss, seed, quality)
        for loss, quality in (("triplet", 1.5), ("polynomial", 2.5))
        for seed in (2, 0, 1)
    ]
    alone = write_run(tmp_path / "scenes" / "triplet-nowarmup", "triplet", 0, 0.5, warmup_epochs=0)
    save_experiment("scenes", runs=runs, without_warmup=[alone])
    return load_experiment("scenes")


def test_table_holds_mean_and_spread(experiment):
    table = results_table(experiment)
    assert list(table.index) == ["triplet", "polynomial"]
    values = [run.metrics["rsum"] for run in experiment.by_loss()["triplet"]]
    assert table.loc["triplet", "rsum"] == f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
    assert table.loc["triplet", "seeds"] == 3
    runs = run_table(experiment)
    assert len(runs) == 7
    for run in experiment.runs:
        assert sha256_of(run.folder / "results.json").startswith(runs.loc[run.folder.name, "SHA-256"])


def test_seeds_are_paired(experiment):
    for runs in experiment.by_loss().values():
        assert [run.config["seed"] for run in runs] == [0, 1, 2]


def test_contributions_add_up_to_rsum(experiment):
    for run in experiment.runs:
        assert run.rsum_by_image.mean() == pytest.approx(run.metrics["rsum"])


def test_a_clear_difference_is_called_one(experiment):
    compared = comparison(experiment)
    assert compared["over_seeds"].low > 0
    assert compared["over_queries"].low > 0
    assert compared["verdict"] == "polynomial is better"
    assert comparison(experiment, "triplet", "triplet")["verdict"].startswith("not decided: the seeds do not differ")


def listed(dataset, change):
    """The comparison after `change` of the names of its runs."""
    path = reporting.RUNS / dataset / "experiment.json"
    names = read_json(path)
    change(names)
    write_json(path, names)
    return load_experiment(dataset)


@pytest.mark.parametrize("key", ["runs", "without_warmup"])
def test_a_run_listed_twice_is_refused(experiment, key):
    with pytest.raises(UWMLError, match="scenes: .*triplet-seed0 and .*triplet-seed0 are one run listed twice"):
        comparison(listed("scenes", lambda names: names[key].append("triplet-seed0")))


@pytest.mark.parametrize("name", ["../scenes/triplet-seed0", "triplet-seed0/../triplet-seed0", "../../outside"])
def test_a_list_that_leads_out_of_its_folder_is_refused(experiment, name):
    with pytest.raises(UWMLError, match="expected names of run folders"):
        listed("scenes", lambda names: names["runs"].append(name))


def test_two_runs_of_one_loss_and_seed_are_refused(experiment, tmp_path):
    write_run(tmp_path / "scenes" / "again", "triplet", 0, 2)
    with pytest.raises(UWMLError, match="triplet-seed0 and again are both triplet with the seed 0"):
        comparison(listed("scenes", lambda names: names["runs"].append("again")))


@pytest.mark.parametrize("name", ["epochs", "warmup_epochs", "max_images", "batch_size", "dataset"])
@pytest.mark.parametrize("loss", ["triplet", "polynomial"])
def test_runs_of_other_settings_are_not_compared(experiment, name, loss):
    run = experiment.by_loss()[loss][1]
    run.config[name] = "other" if name == "dataset" else run.config[name] + 1
    with pytest.raises(UWMLError, match=f"{loss}-seed1 differs from triplet-seed2 in {name}, expected runs that"):
        comparison(experiment)
    with pytest.raises(UWMLError, match=f" in {name}, expected runs that"):
        report_text(experiment)


def test_options_may_differ_between_losses_but_not_between_seeds(experiment):
    for run in experiment.by_loss()["polynomial"]:
        run.config["loss_options"] = {"margin": 0.1}
        run.config["workers"], run.config["data_root"] = 4, "/elsewhere"  # change no result
    assert comparison(experiment)["verdict"] == "polynomial is better"
    experiment.by_loss()["polynomial"][1].config["loss_options"] = {"margin": 0.2}
    with pytest.raises(UWMLError, match="polynomial-seed1 differs from polynomial-seed2 in loss_options"):
        comparison(experiment)


def test_losses_of_other_seeds_are_not_compared(experiment):
    experiment.by_loss()["polynomial"][2].config["seed"] = 7
    with pytest.raises(UWMLError, match="expected the same for both losses"):
        comparison(experiment)


def test_a_run_without_warm_up_is_compared_after_as_many_epochs(experiment):
    experiment.without_warmup[0].config["epochs"] = 1
    (row,) = warmup_effect(experiment).itertuples()
    assert (row.without_warmup, row.with_warmup) == (100.0, 100.0)


def test_another_split_is_not_compared(experiment):
    experiment.by_loss()["triplet"][0].results["split"] = "dev"
    with pytest.raises(UWMLError, match="in split, expected"):
        comparison(experiment)


def test_text_says_what_was_found(experiment):
    text = report_text(experiment)
    assert "**Verdict: polynomial is better.**" in text
    assert "Without warm-up, dev rsum after 2 epochs (one seed each): triplet 101.0 against 101.0 with it." in text
    assert "reference" not in text  # there is none here


def test_text_says_when_there_is_no_test_split(experiment):
    for run in experiment.runs:
        run.results["split"] = "dev"
    assert "There is no test split here" in report_text(experiment)


def test_held_out_training_images_that_chose_the_epoch(experiment):
    for run in experiment.runs:
        run.results["split"], run.results["config"]["selection_images"] = "dev", 50
    text = report_text(experiment)
    assert "this is dev; the last 50 training images, kept out of training, chose the epoch." in text
    assert "held-out train rsum" in run_table(experiment).columns
    figure, _ = plots.recall_curves(experiment)
    assert figure.axes[0].get_ylabel() == "held-out train rsum"


def test_numbers_alone_of_data_that_may_not_be_passed_on(experiment, tmp_path, monkeypatch):
    """Neither pictures nor captions; beside the published run on scenes, which stays."""
    for name in ("site", "reporting"):
        monkeypatch.setattr(f"uwml_lib.{name}.REFERENCE", tmp_path / "reference")
        monkeypatch.setattr(f"uwml_lib.{name}.report_folder", lambda dataset: tmp_path / "report", raising=False)
    for run in experiment.runs:
        run.config["dataset"] = "f8k_precomp"
    monkeypatch.setattr(site, "preset", lambda dataset: ExperimentConfig.from_dict(experiment.runs[0].config))
    other = replace(experiment, dataset="f8k_precomp")
    monkeypatch.setattr(site, "load_experiment", lambda dataset: other)
    write_json(tmp_path / "reference/summary.json", {"dataset": "scenes"})
    metrics = {name: 10.0 for name in COLUMNS}
    nothing = [0.0] * len(other.runs[0].rsum_by_image)
    write_json(tmp_path / "report/linear_cca.json", {"metrics": metrics, "rsum_by_image": nothing})
    (tmp_path / "report/figures").mkdir()
    for name in ("recall_curves.png", "best_retrievals.png"):
        (tmp_path / "report/figures" / name).write_bytes(b"png")
    for _ in range(2):
        site.publish("f8k_precomp")
    folder = tmp_path / "reference/f8k"
    assert sorted(path.name for path in folder.iterdir()) == [
        "linear_cca.json", "recall_curves.png", "runs", "summary.json", "table.md",
    ]  # fmt: skip
    text = (folder / "table.md").read_text(encoding="utf-8")
    assert "linear CCA on the same images (`benchmarks/linear_cca.py`): i→t R@1 10.0" in text
    ours = np.mean([run.metrics["rsum"] for run in other.by_loss()["triplet"]])
    assert f"images, seeds averaged): triplet {ours:+.1f} [" in text
    assert {path.name for path in (folder / "runs").iterdir()} == {run.folder.name for run in experiment.all_runs}
    assert read_json(tmp_path / "reference/summary.json") == {"dataset": "scenes"}
    for wrong in ({"metrics": [1]}, {"metrics": metrics, "rsum_by_image": nothing[1:]}):
        write_json(tmp_path / "report/linear_cca.json", wrong)
        with pytest.raises(UWMLError, match=r"linear_cca\.json: not what `benchmarks/linear_cca.py` writes"):
            report_text(other)


def test_what_the_benchmarks_found_has_a_page(tmp_path, monkeypatch):
    speed = tmp_path / "reference/speed"
    for name, value in (("REPORTS", tmp_path), ("RUNS", tmp_path / "runs"), ("PERFORMANCE", speed)):
        monkeypatch.setattr(site, name, value)
    index = site.build()
    assert not (tmp_path / "performance.html").exists()
    assert "performance.html" not in index.read_text(encoding="utf-8")
    provenance = {"machine": "a machine", "versions": {"torch": "2"}, "commit": None, "started": "now", "command": "it"}
    found = {
        "rows": [{"step": "i2t", "kit / floor": "1.3"}], "alt": "Bars.", "bounds": "Products & `--more`.", "threads": 2,
        "targets": ["kit / floor: wanted at most 1.4: met"], "provenance": provenance,
    }  # fmt: skip
    for name in ("step", "loss"):
        write_json(speed / f"cpu/{name}.json", {**found, "title": f"A <{name}>"})
    assert 'href="performance.html"' in site.build().read_text(encoding="utf-8")
    page = (tmp_path / "performance.html").read_text(encoding="utf-8")
    assert page.index("A &lt;loss&gt;") < page.index("A &lt;step&gt;")
    assert 'src="reference/speed/cpu/step.png" alt="Bars."' in page
    assert "<p>Products &amp; <code>--more</code>.</p>" in page
    for words in ("<td>1.3</td>", "wanted at most 1.4: met", "a machine, 2 threads"):
        assert words in page


def test_a_page_of_a_run_that_is_gone_goes_too(tmp_path, monkeypatch):
    for name, value in (("REPORTS", tmp_path), ("RUNS", tmp_path / "runs"), ("PERFORMANCE", tmp_path / "speed")):
        monkeypatch.setattr(site, name, value)
    page = tmp_path / "pages/scenes/polynomial-seed0.html"
    page.parent.mkdir(parents=True)
    page.touch()
    site.build()
    assert not page.exists()


def test_a_curve_rises_where_its_values_do():
    lines = pd.DataFrame({"epochs_done": [1.0, 2.0, 4.0], "dev_rsum": [100.0, 200.0, 150.0]})
    assert site._curve(lines, "dev_rsum", "rsum")["points"] == "80.0,130.0 160.0,20.0 320.0,75.0"  # y points down


def test_what_the_features_are(experiment):
    for run in experiment.runs:
        run.results["features"] = {run.results["split"]: [10, 36, 128]}
    assert "The features" not in report_text(experiment)
    assert "The features: 36 overlapping windows" in report_text(replace(experiment, dataset="f8k_precomp"))


@pytest.fixture
def published(experiment, tmp_path):
    """The summary of the comparison, published as it is."""
    summary = summary_json(experiment)
    write_json(tmp_path / "reference" / "summary.json", summary)
    for run in experiment.all_runs:
        copy = tmp_path / "reference" / "runs" / run.folder.name / "config.json"
        write_json(copy, read_json(run.folder / "config.json"))
    return summary


def test_agreement_with_the_published_run(published):
    assert agreement_with_reference(published).count("agrees with") == 2
    published["losses"]["triplet"]["metrics"]["rsum"]["mean"] += 100
    assert "triplet: rsum" in agreement_with_reference(published)
    assert agreement_with_reference(published).count("differs from") == 1
    polynomial = published["losses"]["polynomial"]["metrics"]["rsum"]
    for stds, differ in ((1.9, 1), (0.2, 2)):
        polynomial["mean"] += stds * polynomial["std"]
        assert agreement_with_reference(published).count("differs from") == differ
    assert agreement_with_reference({**published, "dataset": "other"}) == ""
    assert agreement_with_reference({**published, "losses": {}}) == ""


@pytest.mark.parametrize("name", ["split", "n_images", "captions_per_image"])
def test_numbers_on_other_images_are_not_compared(published, name):
    text = agreement_with_reference({**published, name: 7})
    assert text.startswith(f"Against reports/reference: the settings differ ({name} 7, not {published[name]}), so the")
    assert "agrees" not in text


@pytest.mark.parametrize("name", ["epochs", "warmup_epochs", "max_images", "learning_rate"])
@pytest.mark.parametrize("place", ["scenes", "reference/runs"])
def test_numbers_of_other_settings_are_not_compared(published, tmp_path, name, place):
    path = tmp_path / place / "polynomial-seed1" / "config.json"
    values = read_json(path)
    values["config"][name] += 1
    write_json(path, values)
    text = agreement_with_reference(published)
    assert text.startswith(f"Against reports/reference: the settings differ ({name} ")
    assert text.endswith("), so the numbers are not compared.")
    assert "agrees" not in text


@pytest.mark.parametrize("content", [None, "{", '{"config": {"epocs": 1}}', '{"config": null}'])
def test_published_settings_that_cannot_be_read(published, tmp_path, content):
    path = tmp_path / "reference" / "runs" / "polynomial-seed1" / "config.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert agreement_with_reference(published) == (
        "Against reports/reference: the settings of its runs cannot be read, so the numbers are not compared."
    )


def test_one_seed_is_no_spread_to_judge_by(published, tmp_path):
    published["losses"]["triplet"]["metrics"]["rsum"] |= {"std": None, "n": 1}
    text = agreement_with_reference(published)
    rsum = published["losses"]["triplet"]["metrics"]["rsum"]["mean"]
    assert f"triplet: rsum {rsum:.1f}, published {rsum:.1f}, and with one seed no spread to judge by; poly" in text
    assert text.count("agrees with") == 1
    published["losses"]["triplet"]["metrics"]["rsum"] |= {"std": 1.0, "n": 2}
    reference = read_json(tmp_path / "reference" / "summary.json")
    reference["losses"]["triplet"]["metrics"]["rsum"] |= {"std": None, "n": 1}
    write_json(tmp_path / "reference" / "summary.json", reference)
    assert agreement_with_reference(published) == text


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "{}", '{"dataset": "scenes"}', '{"dataset": []}', '{"dataset": "scenes", "losses": []}',
        '{"dataset": "scenes", "split": "test", "n_images": 40, "captions_per_image": 5, "losses": {"triplet": {}}}',
        '{"dataset": "scenes", "split": "test", "n_images": 40, "captions_per_image": 5, "losses": {"triplet": '
        '{"metrics": {"rsum": {"mean": "x", "std": null, "n": 1}}, "runs": {"a": ""}}}}',
    ],
)  # fmt: skip
def test_a_summary_of_another_shape_does_not_stop_the_report(experiment, published, tmp_path, content):
    (tmp_path / "reference" / "summary.json").write_text(content)
    sentence = "reports/reference/summary.json cannot be read as a summary, so nothing is compared with it."
    assert agreement_with_reference(published) == sentence
    assert report_text(experiment).endswith(f"\n\n{sentence}\n")


def test_no_runs_yet_is_one_sentence():
    with pytest.raises(UWMLError, match="no finished runs on nothing yet"):
        load_experiment("nothing")


@pytest.mark.parametrize(("n_images", "k"), [(40, 5), (12, 1), (100, 3)])
def test_chance_by_simulation(n_images, k):
    generator = np.random.default_rng(0)
    draws = [retrieval_metrics(generator.random((n_images, n_images * k)), k)["rsum"] for _ in range(400)]
    assert chance_rsum(n_images, k) == pytest.approx(np.mean(draws), abs=4 * np.std(draws) / 20)


def test_figures_draw_what_the_runs_hold(experiment):
    _, recall = plots.recall_curves(experiment)
    assert set(recall["seed"]) == {0, 1, 2}
    assert recall.groupby("epochs_done")["dev_rsum"].mean().tolist() == [100.0, 101.0]
    _, scores = plots.score_curves(experiment)
    assert scores["epochs_done"].max() == 2.0
    assert (scores["positive_score"] == 0.5).all()
    with_warmup = experiment.by_loss()["triplet"][:1]
    figure, collapse = plots.collapse_curves(with_warmup, experiment.without_warmup)
    assert collapse.groupby("run")["epochs_done"].min().to_dict() == {"with warm-up": 1.5, "without warm-up": 0.5}
    levels = [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_linestyle() == "-."]
    assert levels == [pytest.approx(2 * 0.2 * preset("scenes").batch_size)]


def test_only_a_whole_run_is_published(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(site, "load_experiment", lambda dataset: experiment)
    monkeypatch.setattr(site, "report_folder", lambda dataset: tmp_path / "report")
    monkeypatch.setattr(site, "RUNS", tmp_path)
    with pytest.raises(UWMLError, match="01_data_preparation.ipynb: missing, or shows other runs"):
        site.publish("scenes")
    monkeypatch.setattr(site, "all_notebooks", lambda name: [])
    with pytest.raises(UWMLError, match="differs from the preset in epochs"):
        site.publish("scenes")


def test_publishing_keeps_what_the_attacks_found_and_links_the_runs(experiment, tmp_path, monkeypatch):
    reference, report = tmp_path / "reference", tmp_path / "report"
    (report / "figures").mkdir(parents=True)
    monkeypatch.setattr(site, "load_experiment", lambda dataset: experiment)
    monkeypatch.setattr(site, "report_folder", lambda dataset: report)
    write_json(report / "durations.json", {"seconds": {}, "runs": ["of something else"]})
    monkeypatch.setattr(site, "all_notebooks", lambda name: [])
    monkeypatch.setattr(site, "preset", lambda dataset: preset(dataset, warmup_epochs=1, epochs=2))
    monkeypatch.setattr(site, "RUNS", tmp_path)
    monkeypatch.setattr(site, "REFERENCE", reference)
    monkeypatch.setattr(site, "RELIABILITY", reference / "reliability.json")
    (reference / "old").mkdir(parents=True)
    write_json(reference / "reliability.json", FOUND)
    site.publish("scenes")
    assert read_json(reference / "reliability.json") == FOUND
    assert not (reference / "old").exists()
    assert not (reference / "durations.json").exists()
    table = (reference / "table.md").read_text()
    for run in experiment.all_runs:
        assert f"[{run.folder.name}](runs/{run.folder.name})" in table
        assert sha256_of(reference / "runs" / run.folder.name / "results.json")[:12] in table


FOUND = {
    "kills": {"train": {"killed": 20, "lost": 0}, "data": {"killed": 3, "lost": 1}},
    "mutations": {"tried": 1234, "wrong": 2, "unclear": 3, "hung": 4},
    "tests": {"tests": 9, "failures": 1, "errors": 1},
}


def test_what_the_attacks_found_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, "RELIABILITY", tmp_path / "reliability.json")
    assert reporting.reliability_text() == ""
    write_json(tmp_path / "reliability.json", FOUND)
    text = reporting.reliability_text()
    assert "killed 23 times at random moments (train, data), results lost or changed: 1" in text
    assert "1,234 damaged files and settings, wrong results: 2, unclear errors: 3, hangs: 4" in text
    assert "of the 9 attacks as tests, which fill the disk and deny permissions too, 2 failed" in text
    write_json(tmp_path / "reliability.json", {**FOUND, "tests": {**FOUND["tests"], "skipped": 3}})
    assert "of the 9 attacks as tests (3 skipped), which fill" in reporting.reliability_text()


@pytest.mark.parametrize("content", ["{}", '{"kills": []}', '{"kills": {"train": 3}}', "incomplete", "words"])
def test_figures_of_another_shape_are_one_sentence(tmp_path, monkeypatch, content):
    path = tmp_path / "reliability.json"
    monkeypatch.setattr(reporting, "RELIABILITY", path)
    if content == "incomplete":
        content = json.dumps({**FOUND, "mutations": {"tried": 5}})
    elif content == "words":
        content = json.dumps({**FOUND, "mutations": {**FOUND["mutations"], "wrong": "none"}})
    path.write_text(content)
    with pytest.raises(UWMLError, match="reliability.json: not the figures of `make torture`"):
        reporting.reliability_text()


def test_text_says_when_all_was_warm_up(experiment):
    assert "2 epochs, 1 of them warm-up." in report_text(experiment)
    for run in experiment.runs:
        run.config["warmup_epochs"] = 2
    assert "Every epoch was warm-up" in report_text(experiment)


@pytest.mark.parametrize("name", ["results.json", "metrics.jsonl", "config.json"])
def test_a_file_changed_by_hand_is_noticed(experiment, name):
    file = experiment.runs[0].folder / name
    file.write_text(file.read_text().replace("2", "3"))
    with pytest.raises(UWMLError, match=f"{name}: was changed"):
        load_experiment("scenes")


@pytest.mark.parametrize("content", ["{}", '{"runs": [], "without_warmup": []}', '{"runs": [1], "without_warmup": []}'])
def test_a_list_of_runs_of_another_shape(experiment, tmp_path, content):
    (tmp_path / "scenes" / "experiment.json").write_text(content)
    with pytest.raises(UWMLError, match="experiment.json: "):
        load_experiment("scenes")


def log_of_attacks(change=lambda records: None):
    """Such a log as pytest writes of the attacks: 7 kills, 10 mutations, and 30 tests."""
    records = [
        ("kills", {"command": command, "killed": 1, "alone": 0, "lost": 0, "left running": 0})
        for command in torture.COMMANDS
    ]
    records[0][1]["killed"] = 3
    outcome = {"right": 1, "clear error": 4, "wrong": 0, "unclear": 0, "hung": 0}
    records += [("mutations", {"tried": 5, **outcome}), ("mutations", {"tried": 5, **outcome})]
    change(records)
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", tests="30", failures="1", errors="0", skipped="2")
    for name, value in records:
        ElementTree.SubElement(suite, "property", name=name, value=repr(value))
    return ElementTree.ElementTree(root)


def test_the_figures_of_the_attacks(tmp_path, monkeypatch):
    found = torture.figures(log_of_attacks(), 7, 10)
    assert list(found["kills"]) == list(torture.COMMANDS)
    assert sum(item["killed"] for item in found["kills"].values()) == 7
    assert found["mutations"]["tried"] == 10
    assert found["tests"] == {"tests": 30, "failures": 1, "errors": 0, "skipped": 2}
    monkeypatch.setattr(reporting, "RELIABILITY", tmp_path / "reliability.json")
    write_json(tmp_path / "reliability.json", found)
    assert "killed 7 times" in reporting.reliability_text()
    assert "30 attacks as tests (2 skipped), which" in reporting.reliability_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda records: records.pop(1), "no figures of the kills of train --workers 2: did a test process crash"),
        (lambda records: records.clear(), "no figures of the kills of train, train --workers 2, data, reproduce, rep"),
        (lambda records: records.pop(-1), "found 5 mutations, expected 10"),
        (lambda records: records[0][1].update(killed=1), "found 5 kills, expected 7"),
        (lambda records: records[2][1].pop("lost"), "of kills, expected a number lost"),
        (lambda records: records[5][1].pop("hung"), "of mutations, expected a number hung"),
        (lambda records: records[5][1].update(right=0), "found 9 mutations with an outcome, expected 10"),
    ],
)
def test_figures_that_are_missing_are_no_figures(change, words):
    with pytest.raises(ValueError, match=words):
        torture.figures(log_of_attacks(change), 7, 10)


@pytest.mark.parametrize("code", [0, 1, 4])
def test_without_figures_nothing_is_written(tmp_path, monkeypatch, capsys, code):
    """As if every test process had crashed, or pytest itself."""
    monkeypatch.setattr(torture, "RELIABILITY", tmp_path / "reliability.json")
    monkeypatch.setattr(torture.sys, "argv", ["torture"])
    monkeypatch.setattr(torture, "provenance", lambda device: {})
    monkeypatch.setattr(torture.subprocess, "run", lambda *_, **__: torture.argparse.Namespace(returncode=code))
    assert torture.main() == (code or 3)
    assert "is left as it was" in capsys.readouterr().err
    assert not (tmp_path / "reliability.json").exists()


def test_figures_name_the_source_that_the_attacks_began_with(tmp_path, monkeypatch, capsys):
    order = []

    def attack(command, **options):
        order.append((options["env"]["UWML_KILLS"], options["env"]["UWML_MUTATIONS"]))
        log_of_attacks().write(next(word for word in command if "--junitxml" in word).partition("=")[2])
        return torture.argparse.Namespace(returncode=1)

    monkeypatch.setattr(torture, "provenance", lambda device: order.append("source") or {"commit": "abc"})
    monkeypatch.setattr(torture.subprocess, "run", attack)
    monkeypatch.setattr(torture.sys, "argv", ["torture", "--kills", "7", "--mutations", "10"])
    for module in (torture, reporting):
        monkeypatch.setattr(module, "RELIABILITY", tmp_path / "reliability.json")
    assert torture.main() == 1
    assert order == ["source", ("7", "10")]
    assert read_json(tmp_path / "reliability.json")["provenance"] == {"commit": "abc", "command": "make torture"}
    assert "1 failed" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["abc", "-1", "0", "1.5", "", "²"])
@pytest.mark.parametrize("option", ["--kills", "--mutations"])
def test_how_often_is_a_whole_number(monkeypatch, capsys, option, value):
    monkeypatch.setattr(torture.sys, "argv", ["torture", f"{option}={value}"])
    with pytest.raises(SystemExit) as stop:
        torture.main()
    assert stop.value.code == 2
    assert f"argument {option}: found {value!r}, expected a whole number of at least 1" in capsys.readouterr().err


def test_runs_with_other_settings_than_the_preset_are_not_published(experiment):
    with pytest.raises(UWMLError, match="not a run to publish, for it differs from the preset in epochs"):
        site._check_settings(experiment)
    for run in experiment.runs:
        run.config.update({**preset("scenes").to_dict(), "loss": run.config["loss"], "seed": run.config["seed"]})
        del run.config["hidden"]  # as in a run from before this setting
    site._check_settings(experiment)
    experiment.runs[0].config["hidden"] = 3
    with pytest.raises(UWMLError, match="differs from the preset in hidden$"):
        site._check_settings(experiment)
