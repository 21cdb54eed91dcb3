"""Released checkpoints, ensembles and folds, from the command line to the file; the release's habits, one by one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import write_split, write_tiny
from uwml_lib.cli import main, parse
from uwml_lib.config import FIDELITY, ExperimentConfig, preset
from uwml_lib.datasets import Vocabulary, load_selection, load_split, vocabulary
from uwml_lib.datasets.batches import may_be_negatives
from uwml_lib.datasets.vocabulary import tokenize_released
from uwml_lib.evaluation import METRICS, chance_rsum, released_lines, retrieval_metrics, score_matrix
from uwml_lib.losses import PolynomialLoss
from uwml_lib.released.checkpoints import load_released_checkpoint
from uwml_lib.released.published import row_config
from uwml_lib.runs import dev_batches, load_model, scoring
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, read_sealed_json
from uwml_lib.training import Trainer, check_config, train
from uwml_lib.weighting import batch_scores

GOLDEN = Path(__file__).parents[1] / "golden"
BIGRU, WEIGHT_NORM = (
    GOLDEN / name / "model_best.pth.tar" for name in ("checkpoint_i2t_bigru", "checkpoint_t2i_gru_weightnorm")
)

pytestmark = pytest.mark.filterwarnings("ignore:.*made with the Punkt")


def quiet(line):
    pass


def needs_punkt():
    if vocabulary.available_tokenizer() != "punkt":
        pytest.skip("nltk's Punkt is not here (make setup downloads it)")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """A data set called tiny, as the recorded checkpoints say, with their vocabulary; test images in two folds."""
    root, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, size in (("train", 6), ("dev", 6), ("test", 10), ("testall", 20)):
        features = generator.normal(size=(size, 6, 10)).astype(np.float32)
        captions = [" ".join(f"word{n}" for n in generator.integers(0, 20, 5)) for _ in range(2 * size)]
        write_split(root / "tiny", split, features, captions)
    shutil.copy(GOLDEN / "tiny_vocab.json", root / "tiny/tiny_vocab.json")
    return str(root)


@pytest.fixture(autouse=True)
def evaluations(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "EVALUATIONS", tmp_path / "evaluations")
    return tmp_path / "evaluations"


def scores_of(path, data_root, split="test", **settings):
    model, config = load_released_checkpoint(path)
    config = replace(config, data_root=data_root, **{**FIDELITY["corrected"], **settings})
    dataset = load_split(config, split, Vocabulary.load(GOLDEN / "tiny_vocab.json"))
    return score_matrix(model, dataset, precision=config.evaluation_precision)


def evaluate(capsys, *words):
    assert main(["evaluate", *map(str, words)]) == 0
    out = capsys.readouterr().out
    return read_sealed_json(Path(out.splitlines()[-1])), out


# ------------------------------------------------------------------------------------------------ lines of the release


def test_the_lines_of_the_release():
    """Those of the published checkpoint, as its README prints them."""
    numbers = {"image_to_text": (69.4, 89.9, 95.4, 1.0, 4.1), "text_to_image": (47.5, 75.5, 83.1, 2.0, 12.4)}
    columns = ("recall_at_1", "recall_at_5", "recall_at_10", "median_rank", "mean_rank")
    metrics = {f"{side}_{name}": value for side, row in numbers.items() for name, value in zip(columns, row)}  # noqa: B905
    metrics["rsum"] = 460.8
    assert released_lines(metrics).splitlines() == [
        "rsum: 460.8", "Average i2t Recall: 84.9", "Image to text: 69.4 89.9 95.4 1.0 4.1",
        "Average t2i Recall: 68.7", "Text to image: 47.5 75.5 83.1 2.0 12.4",
    ]  # fmt: skip
    fold = released_lines(metrics, [metrics, metrics]).splitlines()
    assert fold[:3] == [
        "Image to text: 69.4, 89.9, 95.4, 1.0, 4.1", "Text to image: 47.5, 75.5, 83.1, 2.0, 12.4",
        "rsum: 460.8 ar: 84.9 ari: 68.7",
    ]  # fmt: skip
    assert (fold[3:6], fold[6:8]) == (fold[:3], ["-----------------------------------", "Mean metrics: "])
    assert fold[8:] == released_lines(metrics).splitlines()


# ------------------------------------------------------------------------------------------------ checkpoints scored


@pytest.mark.parametrize("path", [BIGRU, WEIGHT_NORM], ids=["i2t", "t2i"])
def test_a_checkpoint_is_scored(path, data_root, capsys, evaluations):
    results, out = evaluate(capsys, path, "--data-root", data_root)
    expected = retrieval_metrics(scores_of(path, data_root), 2)
    assert results["metrics"] == expected
    assert out.endswith(f"{released_lines(expected)}\n{next(evaluations.glob('tiny/*.json'))}\n")
    assert f"  rsum {expected['rsum']:.1f}\n" in out
    assert (results["split"], results["folds"], results["features"]) == ("test", 1, {"test": [10, 6, 10]})
    assert results["members"][0]["file"] == "model_best.pth.tar"
    assert {"captions": "text", "siblings": "negatives", "dev_captions": 0}.items() <= results["config"].items()
    assert "mixed fidelity: captions text" in out


def test_folds_and_the_split_testall(data_root, capsys):
    results, out = evaluate(capsys, BIGRU, "--data-root", data_root, "--split", "testall", "--fold5")
    scores = scores_of(BIGRU, data_root, "testall")
    folds = [retrieval_metrics(scores[start : start + 4, 2 * start : 2 * start + 8], 2) for start in range(0, 20, 4)]
    assert results["fold_metrics"] == folds
    for name in METRICS:
        assert results["metrics"][name] == pytest.approx(np.mean([fold[name] for fold in folds]))
    assert released_lines(results["metrics"], folds) in out
    assert "testall split, mean of 5 folds of 4 images:\n" in out
    assert "  the folds are not MSCOCO's 1K, of 1,000 images each: the fewer images, the higher the recalls\n" in out
    given = "image to text R@10, text to image R@5, text to image R@10"
    assert f"  Only 4 images: random scores would give an rsum of {chance_rsum(4, 2):.1f} of 600, and any" in out
    assert f" scores 100 at {given}, so recalls over them mean nothing.\n" in out
    whole, _ = evaluate(capsys, BIGRU, "--data-root", data_root, "--split", "testall")
    assert whole["metrics"] == retrieval_metrics(scores, 2)
    assert whole["metrics"] != results["metrics"]


def test_an_ensemble_is_the_mean_of_the_scores(data_root, capsys, evaluations):
    results, out = evaluate(capsys, BIGRU, WEIGHT_NORM, "--data-root", data_root)
    mean = (scores_of(BIGRU, data_root) + scores_of(WEIGHT_NORM, data_root)) / 2
    assert results["metrics"] == retrieval_metrics(mean, 2)
    assert "an ensemble of 2 models" in out
    assert len(results["members"]) == 2
    assert "+" in next(evaluations.glob("tiny/*.json")).name


def test_released_fidelity_and_each_habit_alone(data_root, capsys):
    needs_punkt()
    root = ["--data-root", data_root, "--split", "dev"]
    released, out = evaluate(capsys, BIGRU, *root, "--fidelity", "released", "--dev-captions", "8")
    wanted = {"captions": "bytes", "dev_captions": 8, "evaluation_precision": "float64"}
    assert wanted.items() <= released["config"].items()
    assert released["metrics"] == retrieval_metrics(scores_of(BIGRU, data_root, "dev", **wanted), 2)
    assert released["features"] == {"dev": [4, 6, 10]}
    for name, value in wanted.items():
        alone, _ = evaluate(capsys, BIGRU, *root, f"--{name.replace('_', '-')}", value)
        assert alone["metrics"] == retrieval_metrics(scores_of(BIGRU, data_root, "dev", **{name: value}), 2)
    assert "mixed fidelity: captions bytes, dev_captions 8, evaluation_precision float64" in out
    cap = FIDELITY["released"]["dev_captions"]
    released, out = evaluate(capsys, BIGRU, *root, "--fidelity", "released")
    assert (released["config"]["dev_captions"], released["features"]) == (cap, {"dev": [6, 6, 10]})
    assert "released fidelity: captions bytes" in out


def test_a_converted_checkpoint_is_scored_alike(data_root, tmp_path, capsys):
    folder = tmp_path / "converted"
    vocab = f"{data_root}/tiny/tiny_vocab.json"
    assert main(["convert", str(BIGRU), str(folder), "--vocabulary", vocab]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    shutil.copytree(Path(data_root) / "tiny", tmp_path / "data/other")
    (tmp_path / "data/other/tiny_vocab.json").unlink()
    one, _ = evaluate(capsys, folder, "--data-root", tmp_path / "data", "--dataset", "other")
    two, _ = evaluate(capsys, BIGRU, "--data-root", data_root)
    assert (one["metrics"], one["ranks"]) == (two["metrics"], two["ranks"])
    assert one["members"][0]["sha256"] == two["members"][0]["sha256"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "tiny_vocab.json: no such file"),
        (["--vocabulary", "VOCABULARY"], "made for 24 words, but the vocabulary has 23"),
        (["--dataset", "absent"], "absent"),
        (["--vocabulary", "RIGHT", "--split", "testall"], "testall_ims.npy: no such file"),
        (
            ["--vocabulary", "RIGHT", "--fold5", "--split", "dev"],
            "folds: found 5, expected a divisor of the 6 dev images",
        ),
        (
            ["--vocabulary", "RIGHT", "--split", "dev", "--dev-captions", "7"],
            "dev_captions: found 7, expected a multiple",
        ),
    ],
)
def test_what_cannot_be_scored(data_root, tmp_path, capsys, words, message):
    root = tmp_path / "data"
    for split in ("dev", "test"):
        for kind in ("ims.npy", "caps.txt"):
            (root / "tiny").mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(data_root) / f"tiny/{split}_{kind}", root / f"tiny/{split}_{kind}")
    short = Vocabulary.load(GOLDEN / "tiny_vocab.json")
    Vocabulary(short.words[:-1]).save(tmp_path / "short.json")
    places = {"VOCABULARY": str(tmp_path / "short.json"), "RIGHT": str(GOLDEN / "tiny_vocab.json")}
    words = [places.get(word, word) for word in words]
    assert main(["evaluate", str(BIGRU), "--data-root", str(root), *words]) == 1
    assert message in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ runs of this kit


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("own")
    write_tiny(root / "tiny", {"train": 40, "dev": 12, "test": 15})
    return ExperimentConfig(
        dataset="tiny", data_root=str(root), embed_size=16, word_dim=8, epochs=2, batch_size=16, learning_rate=0.01,
        device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(config, tmp_path_factory):
    return [train(replace(config, seed=seed), tmp_path_factory.mktemp(f"run{seed}"), quiet) for seed in (0, 1)]


def test_both_protocols_where_images_share_a_sentence(tmp_path, capsys):
    """Twins cost two thirds of the answers here, unless they count as right; the usual numbers come first."""
    generator = np.random.default_rng(0)
    for split, size in (("train", 40), ("dev", 12), ("test", 30)):
        captions = [f"a dog on {('grass', 'snow', 'sand')[image % 3]}" for image in range(size) for _ in range(2)]
        features = np.eye(3, 8, dtype=np.float32)[np.arange(size) % 3][:, None]
        write_split(tmp_path / "twins", split, features + 0.01 * generator.normal(size=features.shape), captions)
    config = ExperimentConfig(
        dataset="twins", data_root=str(tmp_path), embed_size=16, word_dim=8, epochs=6, batch_size=16,
        learning_rate=0.02, warmup_epochs=6, device="cpu", model="vse", twins="ignored",
    )  # fmt: skip
    run = train(config, tmp_path / "run", quiet)
    assert main(["evaluate", str(run)]) == 0
    results, text = read_sealed_json(run / "results.json"), capsys.readouterr().out
    usual, twins = results["metrics"], results["metrics_if_twins_are_right"]
    assert usual["rsum"] < 350
    assert twins["rsum"] == 600
    assert results["ties"]["image_to_text"] == 30  # each with the twins of its captions
    assert text.index(f"rsum {usual['rsum']:.1f}") < text.index("if a caption is right for every image that has this")
    assert "30 from image to text and" in text
    assert text.count("rsum 600.0") == 1


def test_a_run_in_folds(runs, capsys):
    assert main(["evaluate", str(runs[0]), "--fold5"]) == 0
    results = read_sealed_json(runs[0] / "results-test-5folds.json")
    assert (results["folds"], len(results["fold_metrics"])) == (5, 5)
    assert read_sealed_json(runs[0] / "results.json")["folds"] == 1
    out = capsys.readouterr().out
    assert "test split, mean of 5 folds of 3 images, best epoch" in out
    assert "  Only 3 images: random" in out
    assert "  Only 12 dev images: random" in out  # which chose the epoch


def test_every_member_is_scored_with_its_own_threads(monkeypatch):
    used, before = [], torch.get_num_threads()
    monkeypatch.setattr(scoring, "score_matrix", lambda *_, **__: used.append(torch.get_num_threads()) or torch.ones(2))
    members = [scoring.Member("", None, ExperimentConfig(threads=count), None, {}) for count in (2, 3)]
    assert scoring._mean_scores(members, [None, None], range(2), "float32").tolist() == [1, 1]
    assert used == [2, 3]
    assert torch.get_num_threads() == before


def test_an_ensemble_of_runs(runs, capsys, evaluations):
    results, out = evaluate(capsys, *runs)
    assert "an ensemble of 2 models" in out
    assert [member["run"] for member in results["members"]] == [run.name for run in runs]
    assert len(list(evaluations.glob("tiny/*.json"))) == 1
    ranks = read_json(runs[0] / "results.json")["ranks"]
    assert results["ranks"] != ranks
    alone, _ = evaluate(capsys, runs[0], runs[0])
    assert alone["ranks"] == ranks


@pytest.mark.parametrize(
    ("words", "name"),
    [(["--fidelity", "released"], "fidelity"), (["--captions", "bytes"], "captions"), (["--dev-captions", "4"], "dev")],
)
def test_a_run_is_evaluated_as_it_was_trained(runs, capsys, words, name):
    assert main(["evaluate", str(runs[0]), *words]) == 1
    assert f"uwml evaluate: {name}" in capsys.readouterr().err
    assert main(["evaluate", *map(str, runs), *words]) == 1


def test_members_must_be_about_the_same_images(runs, data_root, capsys):
    words = [str(runs[0]), str(BIGRU), "--vocabulary", str(GOLDEN / "tiny_vocab.json"), "--data-root", data_root]
    assert main(["evaluate", *words]) == 1
    assert "other data, or another tokenizer" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ the four habits


def test_fidelity_by_name():
    assert (ExperimentConfig().fidelity, FIDELITY["corrected"]) == (
        "corrected", {"captions": "text", "siblings": "ignored", "dev_captions": 0, "evaluation_precision": "float32"},
    )  # fmt: skip
    released = replace(ExperimentConfig(), **FIDELITY["released"])
    assert released.fidelity == "released"
    for name in FIDELITY["released"]:
        assert replace(released, **{name: {"twins": "ignored", **FIDELITY["corrected"]}[name]}).fidelity == "mixed"


@pytest.mark.parametrize("row", [[], ["--row", "f30k_triplet_i2t_lse"]])
def test_a_training_of_released_fidelity(row):
    base = row_config("f30k_triplet_i2t_lse") if row else preset("scenes")

    def settings(command, *words):
        return parse(command, words).keywords["experiment"]

    assert settings("train", *row, "--fidelity", "released") == replace(base, **FIDELITY["released"])
    assert settings("train", *row) == base
    assert settings("train", *row, "--fidelity", "released", "--captions", "text").fidelity == "mixed"
    assert settings("train-released", "--max_violation", "--fidelity", "released").fidelity == "released"
    assert settings("train-released", "--max_violation").fidelity == "corrected"


@pytest.mark.parametrize(("siblings", "ids"), [("ignored", True), ("negatives", False)])
def test_siblings(config, tmp_path, siblings, ids):
    """What the loss is told of the images, and that it changes the loss of a batch with two captions of one image."""
    (tmp_path / "checkpoint").mkdir()
    trainer = Trainer(replace(config, siblings=siblings), tmp_path, quiet)
    batch = next(iter(trainer.loader))._replace(image_ids=torch.arange(16) // 2)
    with torch.no_grad():
        scores = trainer.model(batch.features, batch.tokens, batch.lengths)
    expected = PolynomialLoss()(scores, batch.image_ids if ids else None)
    assert trainer.step(batch, trainer.loss)["loss"].item() == pytest.approx(expected.item(), abs=1e-6)
    assert PolynomialLoss()(scores, batch.image_ids) != PolynomialLoss()(scores)


def test_twins(config, tmp_path):
    """A caption whose sentence an image has among its own is no negative of it, and others are."""
    (tmp_path / "checkpoint").mkdir()
    trainer = Trainer(replace(config, twins="ignored"), tmp_path, quiet)
    batch = next(iter(trainer.loader))._replace(image_ids=torch.arange(16))
    of_images = torch.arange(16 * 2).reshape(16, 2)
    of_images[3, 1] = of_images[5, 0] = 99  # images 3 and 5 share a sentence; that caption of 5 is in the batch
    batch = batch._replace(sentences=torch.column_stack([of_images[:, 0], of_images]))
    with torch.no_grad():
        scores = trainer.model(batch.features, batch.tokens, batch.lengths)
    negatives = torch.ones(16, 16, dtype=torch.bool)
    negatives[3, 5] = False
    assert torch.equal(
        may_be_negatives(batch.sentences, batch.image_ids, batch.sentences[:, 0], batch.image_ids), negatives
    )
    expected = PolynomialLoss()(scores, batch.image_ids, negatives=negatives)
    assert trainer.step(batch, trainer.loss)["loss"].item() == pytest.approx(expected.item(), abs=1e-6)


def test_captions_as_released(config):
    needs_punkt()
    words = Vocabulary([*("<pad>", "<start>", "<end>", "<unk>"), "b", "'", "a", "b'a", "red", "ball"])
    for style, split in (("bytes", True), ("bytes_glued", False)):
        dataset = load_split(replace(config, captions=style), "train", words)
        known = [word if word in words.index else "<unk>" for word in tokenize_released(dataset.captions[0], split)]
        assert words.decode(dataset.encoded[0])[1:-1] == known


def test_a_training_with_all_four_habits(config, tmp_path):
    needs_punkt()
    released = replace(config, **{**FIDELITY["released"], "dev_captions": 20})
    folder = train(released, tmp_path / "run", quiet)
    results = read_sealed_json(folder / "results.json")
    assert results["features"]["dev"] == [10, 3, 9]
    assert results["config"]["captions"] == "bytes"
    plain = json.loads((train(config, tmp_path / "plain", quiet) / "vocabulary.json").read_text())
    assert json.loads((folder / "vocabulary.json").read_text()) == plain  # of the text, as released


def test_the_last_training_images_choose_the_epoch(config, tmp_path):
    held_out = replace(config, selection_images=8)
    folder = train(held_out, tmp_path / "run", quiet)
    results = read_sealed_json(folder / "results.json")
    assert results["features"]["train"] == [32, 3, 9]
    whole, part, chosen = load_split(config, "train"), load_split(held_out, "train"), load_selection(held_out)
    assert (part.ids + chosen.ids, part.captions + chosen.captions) == (whole.ids, whole.captions)
    assert np.array_equal(np.concatenate([part.features, chosen.features]), whole.features)
    assert torch.equal(chosen.images(0, 8), whole.images(32, 40))
    assert load_selection(config).split == "dev"
    said = []
    train(replace(held_out, seed=1), tmp_path / "other", said.append)
    assert "train 100.0 %, held-out train 100.0 %, test" in said[0]
    assert "held-out train rsum" in said[1]
    model, _, words = load_model(folder)  # coefficients are fitted to these images too, for dev may be what is reported
    expected = batch_scores(score_matrix(model, load_selection(held_out, words)), 2, held_out.batch_size)
    torch.testing.assert_close(dev_batches(folder), expected)
    with pytest.raises(UWMLError, match="selection_images: found 40, expected fewer than the 40 training images"):
        train(replace(config, selection_images=40), tmp_path / "none", quiet)


def test_a_bad_image_is_named_by_its_row(config, tmp_path):
    write_tiny(tmp_path / "tiny")
    features = np.load(tmp_path / "tiny/train_ims.npy")
    features[38, 1, 2] = np.nan
    np.save(tmp_path / "tiny/train_ims.npy", features)
    chosen = load_selection(replace(config, data_root=str(tmp_path), selection_images=8))
    with pytest.raises(UWMLError, match=r"train_ims\.npy: image 38"):
        chosen.images(0, 8)


def test_no_float64_on_mps(config, monkeypatch):
    monkeypatch.setattr("uwml_lib.training.runner.device_of", lambda config: "mps")
    check_config(config)
    with pytest.raises(UWMLError, match="evaluation_precision: found 'float64'"):
        check_config(replace(config, evaluation_precision="float64"))
