"""Questions to finished runs: what is found is what the score matrix says, and nothing stale is ever used."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.command_line import uwml
from tests.tiny import make_varying, write_caption_vectors, write_tiny
from uwml_lib.cli import main
from uwml_lib.commands import search as commands
from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import Vocabulary, available_tokenizer
from uwml_lib.datasets.vocabulary import SPECIALS
from uwml_lib.evaluation import score_matrix
from uwml_lib.models import MODELS
from uwml_lib.reports.site import found
from uwml_lib.runs import kept
from uwml_lib.runs.search import Match, Search
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import write_json
from uwml_lib.training import train


def quiet(line):
    pass


def trained(root: Path, model: str, run: Path | None = None, seed: int = 0) -> Path:
    captions = "vectors" if MODELS[model].reads == "vectors" else "text"
    settings = {"epochs": 1, "batch_size": 16, "embed_size": 8, "word_dim": 6, "device": "cpu"}
    config = ExperimentConfig("tiny", str(root), model=model, captions=captions, seed=seed, **settings)
    return train(config, run or root / model, say=quiet)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("search")
    folder = write_tiny(root / "tiny")
    (folder / "test_ids.txt").write_text("".join(f"{7 * number}\n" for number in range(14)))
    trained(root, "scan")
    return root


@pytest.fixture
def run(made, tmp_path) -> Path:
    """A run of SCAN that may be spoilt, whose data may not."""
    return shutil.copytree(made / "scan", tmp_path / "scan")


@pytest.mark.parametrize("model", MODELS)
def test_what_is_found_is_what_the_score_matrix_says(model, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "BLOCK", 5)
    folder = write_tiny(tmp_path / "tiny", {"train": 16, "dev": 3, "test": 14})
    if MODELS[model].varying:
        make_varying(folder)
    if MODELS[model].reads == "vectors":
        write_caption_vectors(folder)
    trained(tmp_path, model)
    asked = Search(tmp_path / model, "test", say=quiet)
    scores = score_matrix(asked.model, asked.data).numpy()
    for item in (0, 9):
        found = asked.captions_for(asked.data.ids[item], top=28).found
        assert sorted(match.captions for match in found) == sorted(asked.data.captions)
        numbers = (-scores[item]).argsort(kind="stable")
        np.testing.assert_allclose([match.score for match in found], scores[item][numbers], atol=1e-6)
        assert found[0].captions == asked.data.captions[numbers[0]]
        assert found[0].number == numbers[0] // 2
    if asked.model.reads == "vectors":
        with pytest.raises(UWMLError, match=r"frozen reads captions as vectors .*, so it cannot read a sentence; ask"):
            asked.images_for("a red ball")
        return
    for caption in (0, 13):
        found = asked.images_for(asked.data.captions[caption], top=99)
        order = (-scores[:, caption]).argsort(kind="stable")
        np.testing.assert_allclose([match.score for match in found.found], scores[order, caption], atol=1e-6)
        assert (len(found.found), found.unknown) == (14, ())
        best = order[0]
        assert found.found[0][1:] == (
            asked.data.ids[best], best, " / ".join(asked.data.captions[2 * best : 2 * best + 2])
        )  # fmt: skip


def test_a_second_question_embeds_nothing(run, monkeypatch):
    said = []
    first = Search(run, say=said.append)
    expected = first.images_for("a red ball"), first.captions_for(3)
    assert said == [
        f"scan: keeping embeddings of {what} in this run's folder: 0.0 MB"
        for what in ("14 test images", "28 test captions")
    ]
    assert np.load(run / "embeddings/test_images/numbers.npy").size == 14 * 3 * 8
    lengths = first.data.caption_lengths
    assert np.load(run / "embeddings/test_captions/numbers.npy").size == lengths.sum() * 8  # no padding
    monkeypatch.setattr(kept, "_embed", None)
    again = Search(run, say=said.append)
    assert (again.images_for("a red ball"), again.captions_for("21")) == expected
    assert len(said) == 2


def test_what_another_run_kept_is_made_anew(run, made, tmp_path):
    other = trained(made, "scan", tmp_path / "other", seed=1)
    Search(other, say=quiet).images_for("a red ball .")
    shutil.copytree(other / "embeddings", run / "embeddings")
    said = []
    asked = Search(run, say=said.append)
    found = asked.images_for("a red ball .", top=14).found
    assert len(said) == 1
    expected = score_matrix(asked.model, asked.data)[:, asked.data.captions.index("a red ball .")]
    np.testing.assert_allclose([match.score for match in found], sorted(expected, reverse=True), atol=1e-6)
    Search(run, say=said.append).images_for("a red ball .")
    assert len(said) == 1


def test_a_changed_number_is_found(run):
    Search(run, say=quiet).images_for("a red ball")
    path = run / "embeddings/test_images/numbers.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UWMLError, match=r"numbers\.npy: was changed after it was written; remove .*test_images"):
        Search(run, say=quiet).images_for("a red ball")


def test_a_full_disk_is_a_sentence_and_leaves_nothing(run, monkeypatch):
    done = uwml(run.parent, "search", str(run), "a red ball", largest_file=1000)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "test_images: cannot be written" in done.stderr
    assert not [path for path in (run / "embeddings").iterdir() if path.suffix != ".lock"]
    monkeypatch.setattr(kept.shutil, "disk_usage", lambda _: SimpleNamespace(free=1300))
    with pytest.raises(UWMLError, match=r"test_images: found 0\.0 MB free, expected 0\.0 for the embeddings"):
        Search(run, say=quiet).images_for("a red ball")


def test_what_cannot_be_asked(run):
    search = Search(run, say=quiet)
    sentences = {
        "Purple zebras .": r"question: found none but unknown words \(purple, zebras\), expected at least one that ",
        " ... ": "question: found no word, expected at least one",
        "\udcff": "question: found .*, expected text in UTF-8",
        "ball " * 1001: "question: found 5,004 characters, expected at most 5,000",
    }
    for sentence, words in sentences.items():
        with pytest.raises(UWMLError, match=words):
            search.images_for(sentence)
    for item in ("92", "-1", "15", "9" * 5000, "", "ball"):
        with pytest.raises(UWMLError, match="expected an id such as '.*', or a number from 0 to 13, of the test split"):
            search.captions_for(item)
    with pytest.raises(UWMLError, match="top: found 0, expected at least 1"):
        search.images_for("a ball", top=0)


def test_scores_are_as_precise_as_the_run_is_evaluated(run):
    search = Search(run, say=quiet)
    search.config = replace(search.config, evaluation_precision="float64")
    expected = score_matrix(search.model, search.data, precision="float64").numpy()
    found = search.captions_for(3, top=28).found
    np.testing.assert_allclose([match.score for match in found], sorted(expected[3], reverse=True), atol=1e-12)


def test_scores_that_are_not_finite(run):
    search = Search(run, say=quiet)
    search.model.image_encoder.fc.bias.data.fill_(np.nan)
    with pytest.raises(UWMLError, match="scan: its model gives scores that are not finite, expected cosines"):
        search.images_for("a ball")


def test_words_that_are_unknown_are_named(run):
    found = Search(run, say=quiet).images_for("A purple ball, a PURPLE zebra", top=2)
    assert (found.unknown, len(found.found)) == (("purple", "zebra"), 2)
    html = found._repr_html_()
    assert f"{found.found[0].score:.4f}" in html
    assert found.found[0].item in html


@pytest.mark.parametrize("style", ["bytes", "bytes_glued"])
def test_the_quotes_of_the_release_are_no_words(style, run):
    if available_tokenizer() != "punkt":
        pytest.skip("nltk's Punkt is not here (make setup downloads it)")
    asked = Search(run, say=quiet)
    asked.config = replace(asked.config, captions=style)
    asked.vocabulary = Vocabulary([*SPECIALS, "b", "'", "b'ball", "red"])
    with pytest.raises(UWMLError, match="none but unknown words"):
        asked.images_for("zebra")
    assert asked.images_for("ball red" if style == "bytes_glued" else "zebra red").found


def test_the_command(run, capfd):
    assert main(["--json", "search", str(run), "a", "red", "zebra", "--top", "2", "--split", "dev"]) == 0
    out, err = capfd.readouterr()
    expected = Search(run, "dev", say=quiet).images_for("a red zebra", top=2)
    found = json.loads(out)
    assert [Match(**match) for match in found["found"]] == expected.found
    assert (found["unknown"], found["split"], found["page"]) == (["zebra"], "dev", None)
    assert "dev split" in err and "12 images; best for a red zebra:" in err
    assert "words that the run does not know: zebra" in err

    assert main(["search", str(run), "--item", "1", "--top", "28"]) == 0
    out = capfd.readouterr().out
    assert "28 captions; best for 7:" in out
    assert len(re.findall(r"^ +\d+\. -?0\.\d{4}  7 \(its own\)  ", out, re.MULTILINE)) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "question: found none, expected one of a sentence"),
        (["a ball", "--item", "7"], "question: found a sentence and --item, expected one of a sentence"),
        (["a ball", "--data-root", "/nowhere"], "/nowhere/tiny"),
    ],
)
def test_an_error_is_a_sentence(arguments, words, run, capsys):
    assert main(["search", str(run), *arguments]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"uwml search: {words}")


def test_what_the_release_trained_is_refused(tmp_path, capsys):
    write_json(tmp_path / "config.json", {"released": True})
    assert main(["search", str(tmp_path), "a ball"]) == 1
    assert "found a checkpoint of the release, expected the folder of a run of this kit" in capsys.readouterr().err


def test_a_file_needs_data_whose_backbone_is_known(run, made, capsys):
    assert main(["search", str(run), "--image", "dog.jpg"]) == 1
    words = f"uwml search: {made}/tiny/pictures.json: no such file; features of a picture can be made only as"
    assert capsys.readouterr().err.startswith(words)


def test_pictures_come_on_a_page_unless_a_package_lacks(run, made, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(found, "report_folder", lambda dataset: tmp_path / dataset)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (9, 9)).save(pictures / "0.png")
    command = ["search", str(run), "a ball", "--top", "14", "--pictures", str(pictures)]
    assert main(command) == 0
    page = Path(capsys.readouterr().out.splitlines()[-1])
    assert page.read_text(encoding="utf-8").count("<img ") == 1
    page.unlink()
    for item in Search(run, say=quiet).data.ids:
        Image.new("RGB", (9, 9)).save(pictures / item, "png")
    write_json(made / "tiny/pictures.json", {"images": str(pictures)})
    assert main(command[:-2]) == 0
    (made / "tiny/pictures.json").unlink()
    assert page.read_text(encoding="utf-8").count("<img ") == 14, "the photographs that the features were made of"
    page.unlink()
    monkeypatch.setattr(commands, "find_spec", lambda name: None)
    assert main(command) == 0
    assert capsys.readouterr().out.endswith(
        "no page of the pictures: it needs jinja2 and pillow, which `make setup` brings\n"
    )
    assert not page.exists()
