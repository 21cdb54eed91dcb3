"""The report of two losses, from run folders written by the test: table, verdict, remarks, agreement, pages."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tests.made import altered, made_run, made_runs, write_run, write_study
from uwml_lib.config import preset
from uwml_lib.evaluation import chance_rsum, retrieval_metrics
from uwml_lib.losses import PolynomialLoss
from uwml_lib.reports import figures
from uwml_lib.reports.site import results
from uwml_lib.reports.tables import COLUMNS, commands_in_words, compare_losses, results_table, run_table
from uwml_lib.reports.tuned_losses import tuned_losses
from uwml_lib.reports.two_losses import (
    agreement_with_reference,
    by_seed,
    linear_cca_text,
    two_losses,
    warmup_effect,
)
from uwml_lib.runs import Run, StudyRuns
from uwml_lib.studies import build_pages, fidelity, models
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, sha256_of, write_json
from uwml_lib.weighting import describe


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    monkeypatch.setattr(paths, "REFERENCE", tmp_path / "reference")
    return write_study((2, 0, 1))


def text(study: StudyRuns) -> str:
    return two_losses(study).to_markdown()


def test_table_holds_mean_and_spread(study):
    table = results_table(study)
    assert list(table.index) == ["triplet", "polynomial"]
    values = [run.rsum for run in study.by_loss()["triplet"]]
    assert table.loc["triplet", "rsum"] == f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
    assert table.loc["triplet", "seeds"] == 3
    runs = run_table(study.all_runs)
    assert len(runs) == 7
    for run in study.runs:
        assert sha256_of(run.folder / "results.json").startswith(runs.loc[run.folder.name, "SHA-256"])


def test_contributions_add_up_to_rsum(study):
    for run in study.runs:
        assert run.rsum_by_image.mean() == pytest.approx(run.rsum)


def test_a_clear_difference_is_called_one(study):
    compared = compare_losses(study)
    assert compared.over_seeds.low > 0
    assert compared.over_images.low > 0
    report = two_losses(study)
    assert (report.verdict, report.decided) == ("polynomial is better", True)
    assert report.outcomes == {"SCAN, i2t Mean on scenes": "polynomial"}
    sentence, _ = report.findings
    assert sentence.startswith("On scenes (40 test images, SCAN, i2t Mean): triplet ")
    assert sentence.endswith(" in rsum; polynomial is better.")


def test_text_says_what_was_found(study):
    assert "**Verdict: polynomial is better.**" in text(study)
    sentence = "Without warm-up, dev rsum after 2 epochs (one seed each): triplet 101.0 against 101.0 with it."
    assert sentence in text(study)
    assert "reference" not in text(study)  # there is none here


def test_seeds_whose_scores_end_at_two_levels_are_told_apart(study, monkeypatch):
    low = next(run for run in study.runs if run.config.loss == "triplet")
    monkeypatch.setattr(Run, "last_positive_score", property(lambda run: -0.5 if run.folder == low.folder else 0.6))
    said = text(study)
    assert "The scores of the triplet loss settle at two levels: positives at +0.60 to +0.60, rsum " in said
    there = f"positives at -0.50 to -0.50, rsum {low.rsum:.1f} to {low.rsum:.1f} (seeds: {low.seed})"
    assert f"; {there}. Student's t takes these for one" in said
    assert "The scores of the polynomial" not in said
    others = [run.rsum for run in study.by_loss()["triplet"] if run is not low]
    cost = sum(others) / len(others) - low.rsum
    third = [write_run(paths.RUNS / f"scenes/infonce-{seed}", "infonce", seed, 2.0) for seed in (2, 0, 1)]
    with_third = StudyRuns("scenes", {"runs": (*study.runs, *third)})
    assert tuned_losses(with_third).findings[-1] == (
        "With some losses scores settle on scenes at one of two levels, by the seed. At the lower one: triplet with 1 "
        f"of 3 seeds, {abs(cost):.0f} points of rsum {'behind' if cost > 0 else 'ahead of'} its other seeds."
    )
    by_loss = study.by_loss()
    apart = [a.rsum - b.rsum for a, b in zip(by_loss["polynomial"], by_loss["triplet"], strict=True)]
    seeds = [run.seed for run in by_loss["polynomial"]]
    listed = ", ".join(f"{seed}: {value:+.1f}" for seed, value in zip(seeds, apart, strict=True))
    assert f"polynomial − triplet, rsum, seed by seed: {listed}." in said
    monkeypatch.setattr(Run, "last_positive_score", property(lambda run: -0.1 if run.folder == low.folder else 0.1))
    assert "two levels" not in text(study), "on both sides of 0, but not apart"
    assert two_losses(study).findings[1] == (
        "Seed by seed on scenes: the polynomial loss is ahead with 3 of 3 seeds (two-sided sign test: p = 0.2), by "
        f"{sorted(apart)[1]:+.1f} in the median."  # 2 (1 / 2)^3 = 0.25
    )


def test_seeds_with_which_both_losses_are_equal_are_named_and_not_counted(monkeypatch):
    """Equal but for rounding, which is no lead of either."""
    monkeypatch.setattr(Run, "collapsed", False)
    triplet = made_runs({0: 400.0, 1: 400.0, 2: 400.0}, loss="triplet")
    polynomial = made_runs({0: 401.0, 1: 402.0, 2: 400.0 - 6e-14}, loss="polynomial")
    listed, summed_up = by_seed({"triplet": triplet, "polynomial": polynomial})
    assert listed.endswith("seed by seed: 0: +1.0, 1: +2.0, 2: +0.0.")
    assert summed_up.startswith("the polynomial loss is ahead with 2 of 3 seeds, equal with 1 (two-sided sign test: ")
    assert "p = 0.5)" in summed_up


def test_text_says_when_there_is_no_test_split(study):
    assert "These data have no test split, so this is dev; which also" in text(altered(study, results={"split": "dev"}))


def test_held_out_training_images_that_chose_the_epoch(study):
    study = altered(study, results={"split": "dev"}, selection_images=50)
    assert "so this is dev; the last 50 training images, kept out of training, chose the epoch." in text(study)
    assert "held-out train rsum" in run_table(study.all_runs).columns
    figure, _ = figures.recall_curves(study)
    assert figure.axes[0].get_ylabel() == "held-out train rsum"


def test_text_says_when_all_was_warm_up(study):
    assert "2 epochs, 1 of them warm-up." in text(study)
    assert "Every epoch was warm-up" in text(altered(study, study.runs, warmup_epochs=2))
    assert "; 1 epoch, all warm-up." in text(altered(study, epochs=1))


def test_few_images_are_remarked_in_every_report(study):
    remark = "Only 40 test images: random scores would give an rsum of 77.3 of 600, and one image is 2.5 points of a"
    assert remark in text(study)
    for report in (tuned_losses, fidelity.report, models.report):
        assert remark in report(study).to_markdown()
    on_dev = altered(study, results={"features": {"dev": [6, 4, 8]}})
    assert "Only 6 dev images: random" in text(on_dev)
    assert "Only 7 held-out train images: random" in text(altered(on_dev, selection_images=7))


def test_what_the_features_are(study):
    study = altered(study, results={"features": {"test": [10, 36, 128]}})
    assert "The features" not in text(study)
    assert "The features: 36 overlapping windows" in text(StudyRuns("f8k_precomp", study.groups))


def test_linear_cca_on_the_same_images(study, tmp_path):
    metrics, nothing = {name: 10.0 for name in COLUMNS}, [0.0] * len(study.runs[0].rsum_by_image)
    path = tmp_path / "linear_cca.json"
    baseline = {"split": study.split, "images": {"train": 90}, "metrics": metrics, "rsum_by_image": nothing}
    write_json(path, baseline)
    words = linear_cca_text(path, study)
    assert "linear CCA, fitted on all 90 training images, held-out ones included, and scored on the" in words
    assert "(`benchmarks/linear_cca.py --dataset scenes`): i→t R@1 10.0" in words
    ours = np.mean([run.rsum for run in study.by_loss()["triplet"]])
    assert f"images, seeds averaged): triplet {ours:+.1f} [" in words
    write_json(path, {**baseline, "split": "train"})
    with pytest.raises(UWMLError, match=r"linear_cca\.json: found the train split, expected test; run it again"):
        linear_cca_text(path, study)
    for wrong in ({"metrics": [1]}, {"rsum_by_image": nothing[1:]}):
        write_json(path, baseline | wrong)
        with pytest.raises(
            UWMLError, match=r"linear_cca\.json: found .*, expected what `benchmarks/linear_cca.py` writes"
        ):
            linear_cca_text(path, study)


def test_a_row_says_which_negatives_trained_the_model(study):
    def titles(*warmups):
        of = zip(("triplet", "polynomial"), warmups, strict=True)
        runs = [made_run(1.0, warmup_epochs=warmup, epochs=4, model="vse", loss=loss) for loss, warmup in of]
        return [*StudyRuns("scenes", {"runs": tuple(runs)}).by_model()]

    assert titles(4, 4) == ["VSE++, dense form"]
    assert titles(4, 1) == titles(1, 4) == ["VSE++"], "each loss may have a warm-up of its own"
    rows = list(tuned_losses(study).table.index)
    assert rows == ["polynomial", "triplet"]  # the higher mean rsum first
    assert list(tuned_losses(study).table["better"]) == ["polynomial", ""]


def test_a_report_with_its_runs(study):
    report = two_losses(study)
    markdown = report.with_runs()
    for loss, row in report.table.iterrows():
        assert f"| {loss} " in markdown
        assert row["rsum"] in markdown
    assert f"**Verdict: {report.verdict}.**" in markdown
    assert "[triplet-seed0](runs/triplet-seed0)" in markdown
    assert markdown.endswith(f"\n\n{commands_in_words(study.all_runs)}\n")
    several = [SimpleNamespace(results={"provenance": {"command": command}}) for command in ("a", "b *", "a")]
    assert commands_in_words(several) == r"Trained by: a (2 runs); b \* (1 run)."


def test_a_run_without_warm_up_is_compared_after_as_many_epochs(study):
    (row,) = warmup_effect(altered(study, study["without_warmup"], epochs=1)).itertuples()
    assert (row.without_warmup, row.with_warmup) == (100.0, 100.0)


def test_a_page_of_a_run_that_is_gone_goes_too(tmp_path, monkeypatch, unmade):
    for name, value in (("REPORTS", tmp_path), ("RUNS", tmp_path / "runs"), ("PERFORMANCE", tmp_path / "speed")):
        monkeypatch.setattr(paths, name, value)
    page = tmp_path / "pages/runs/scenes/polynomial-seed0.html"
    page.parent.mkdir(parents=True)
    page.touch()
    build_pages()
    assert not page.exists()


def test_a_curve_rises_where_its_values_do():
    lines = pd.DataFrame({"epochs_done": [1.0, 2.0, 4.0], "dev_rsum": [100.0, 200.0, 150.0]})
    assert 'points="80.0,130.0 160.0,20.0 320.0,75.0"' in results._curve(lines, "dev_rsum", "rsum", 80)  # y points down


def test_what_the_benchmarks_found_has_a_page(tmp_path, monkeypatch, unmade):
    speed = tmp_path / "reference/speed"
    for name, value in (("REPORTS", tmp_path), ("RUNS", tmp_path / "runs"), ("PERFORMANCE", speed)):
        monkeypatch.setattr(paths, name, value)
    build_pages()
    part = tmp_path / "_made/performance.md"
    assert part.read_text(encoding="utf-8") == "Nothing was measured here: `make bench` does."
    assert "{include} /_made/performance.md" in (tmp_path / "pages/how_fast.md").read_text(encoding="utf-8")
    provenance = {"machine": "a machine", "versions": {"torch": "2"}, "commit": None, "started": "now", "command": "it"}
    found = {
        "rows": [{"step": "i2t", "kit / floor": "1.3"}], "alt": "Bars.", "bounds": "Products & `--more`.", "threads": 2,
        "targets": ["kit / floor: wanted at most 1.4: met"], "provenance": provenance,
    }  # fmt: skip
    for name in ("step", "loss"):
        write_json(speed / f"cpu/{name}.json", {**found, "title": f"A <{name}>"})
        (speed / f"cpu/{name}.png").touch()
    build_pages()
    text = part.read_text(encoding="utf-8")
    assert text.index(r"### A \<loss\>") < text.index(r"### A \<step\>")
    assert "![Bars.](/_pictures/step-" in text and len([*(tmp_path / "_pictures").glob("step-*.png")]) == 1
    for words in ("| 1.3  ", "- kit / floor: wanted at most 1.4: met", "Products & `--more`.", "a machine, 2 threads"):
        assert words in text


@pytest.fixture
def published(study, tmp_path):
    """The summary of the comparison, published as it is, and now of runs with other times."""
    summary = two_losses(study).data
    write_json(tmp_path / "reference" / "summary.json", summary)
    for run in study.all_runs:
        copy = tmp_path / "reference" / "runs" / run.folder.name / "config.json"
        write_json(copy, read_json(run.folder / "config.json"))
    for found in summary["losses"].values():
        found["runs"] = dict.fromkeys(found["runs"], "another digest")
    return summary


def test_runs_that_are_published_are_not_compared_with_themselves(published, study):
    assert agreement_with_reference(two_losses(study).data) == ""
    assert not any("reports/reference" in note for note in two_losses(study).notes)


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
    words = agreement_with_reference({**published, name: 7})
    assert words.startswith(f"Against reports/reference: the settings differ ({name} 7, not {published[name]}), so the")
    assert "agrees" not in words


@pytest.mark.parametrize("name", ["epochs", "warmup_epochs", "learning_rate"])
@pytest.mark.parametrize("place", ["scenes", "reference/runs"])
def test_numbers_of_other_settings_are_not_compared(published, tmp_path, name, place):
    path = tmp_path / place / "polynomial-seed1" / "config.json"
    values = read_json(path)
    values["config"][name] += 1
    write_json(path, values)
    words = agreement_with_reference(published)
    assert words.startswith(f"Against reports/reference: the settings differ ({name} ")
    assert words.endswith("), so the numbers are not compared.")
    assert "agrees" not in words


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
    words = agreement_with_reference(published)
    rsum = published["losses"]["triplet"]["metrics"]["rsum"]["mean"]
    assert f"triplet: rsum {rsum:.1f}, published {rsum:.1f}, and with one seed no spread to judge by; poly" in words
    assert words.count("agrees with") == 1
    published["losses"]["triplet"]["metrics"]["rsum"] |= {"std": 1.0, "n": 2}
    reference = read_json(tmp_path / "reference" / "summary.json")
    reference["losses"]["triplet"]["metrics"]["rsum"] |= {"std": None, "n": 1}
    write_json(tmp_path / "reference" / "summary.json", reference)
    assert agreement_with_reference(published) == words


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "{}", '{"dataset": "scenes"}', '{"dataset": []}', '{"dataset": "scenes", "losses": []}',
        '{"dataset": "scenes", "split": "test", "n_images": 40, "captions_per_image": 5, "losses": {"triplet": {}}}',
        '{"dataset": "scenes", "split": "test", "n_images": 40, "captions_per_image": 5, "losses": {"triplet": '
        '{"metrics": {"rsum": {"mean": "x", "std": null, "n": 1}}, "runs": {"a": ""}}}}',
    ],
)  # fmt: skip
def test_a_summary_of_another_shape_does_not_stop_the_report(study, published, tmp_path, content):
    (tmp_path / "reference" / "summary.json").write_text(content)
    sentence = "reports/reference/summary.json cannot be read as a summary, so nothing is compared with it."
    assert agreement_with_reference(published) == sentence
    assert text(study).endswith(f"\n\n{sentence}\n")


@pytest.mark.parametrize(("n_images", "k"), [(40, 5), (12, 1), (100, 3)])
def test_chance_by_simulation(n_images, k):
    generator = np.random.default_rng(0)
    draws = [retrieval_metrics(generator.random((n_images, n_images * k)), k)["rsum"] for _ in range(400)]
    assert chance_rsum(n_images, k) == pytest.approx(np.mean(draws), abs=4 * np.std(draws) / 20)


def test_figures_draw_what_the_runs_hold(study, monkeypatch):
    history = Run.history

    def differs_by_seed(run):
        lines = history(run)
        return lines.assign(dev_rsum=lines["dev_rsum"] + run.results["dev_rsum"] - 100)

    monkeypatch.setattr(Run, "history", differs_by_seed)
    figure, recall = figures.recall_curves(study)
    assert set(recall["seed"]) == {0, 1, 2}
    assert recall.groupby("epochs_done")["dev_rsum"].mean().tolist() == [101.0, 102.0]
    figure_of_means, means = figures.convergence(study.by_loss())
    assert means.to_dict() == {loss: {1: 101.0, 2: 102.0} for loss in ("triplet", "polynomial")}
    assert [axis.get_title() for axis in figure_of_means.axes] == ["triplet: 102", "polynomial: 102"]
    for axis in (*figure.axes, *figure_of_means.axes):
        assert axis.lines[-1].get_ydata().tolist() == [101.0, 102.0]
        band = axis.collections[-1].get_paths()[0].vertices  # from the worst seed to the best
        assert {tuple(point) for point in band.tolist()} >= {(1, 100), (1, 102), (2, 101), (2, 103)}
    figure, scores = figures.score_curves(study)
    assert scores["epochs_done"].max() == 2.0
    assert (scores["positive_score"] == 0.5).all()
    assert [len(axis.lines) for axis in figure.axes] == [2 * 3, 2 * 3]
    figure, levels = figures.score_levels(study.by_loss(), describe(PolynomialLoss()).zones)
    assert (levels["positives"] == 0.5).all() and (levels["hardest negatives"] == 0.4).all()
    assert [*levels.index] == [(loss, seed) for loss in ("triplet", "polynomial") for seed in (0, 1, 2)]
    [axis] = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["triplet", "polynomial"]
    shaded = [patch for patch in axis.patches if "negatives are" in patch.get_label()]
    ends = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in shaded]
    assert ends == [pytest.approx((-0.1, 0.0955), abs=1e-4), pytest.approx((0.0955, 0.3489), abs=1e-4)]
    figure, rsums = figures.rsum_by_seed(study.by_loss(), joined=True)
    assert rsums.loc["triplet"].tolist() == [run.rsum for run in study.by_loss()["triplet"]]
    *seeds, mean = figure.axes[0].lines
    assert len(seeds) == 3 and seeds[0].get_linestyle() == "-"
    assert mean.get_xdata().tolist() == pytest.approx(rsums.mean(axis=1).tolist())
    with_warmup = study.by_loss()["triplet"][:1]
    figure, collapse = figures.collapse_curves(with_warmup, study["without_warmup"])
    assert collapse.groupby("run")["epochs_done"].min().to_dict() == {"with warm-up": 1.5, "without warm-up": 0.5}
    levels = [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_linestyle() == "-."]
    assert levels == [pytest.approx(2 * 0.2 * preset("scenes").batch_size)]
