"""Captions to tokens to numbers: recorded tokens, the released JSON, and what happens without nltk's data."""

import inspect
import json
import re
import socket
import sys
import warnings
from pathlib import Path

import nltk
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.tiny import write_caption_vectors, write_split, write_tiny
from uwml_lib.datasets import PrecomputedDataset, Vocabulary, build_vocabulary, download_punkt, tokenize, vocabulary
from uwml_lib.datasets.loading import coverage_line, words_covered
from uwml_lib.datasets.vocabulary import SPECIALS, tokenize_released
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_lines

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDED = json.loads((GOLDEN / "caption_tokens.json").read_text(encoding="utf-8"))
TWO_SENTENCES = "Two men talk. One of them laughs."


@pytest.fixture
def punkt():
    """Skip where nltk has no sentence tokenizer."""
    if vocabulary.available_tokenizer() != "punkt":
        pytest.skip("nltk's Punkt is not here (make setup downloads it)")


@pytest.fixture
def no_punkt(tmp_path, monkeypatch):
    """Be a machine that never downloaded anything; returns the folder where the kit would look."""
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(vocabulary, "NLTK_DATA", tmp_path / "nltk_data")
    vocabulary._punkt.cache_clear()
    yield tmp_path / "nltk_data"
    vocabulary._punkt.cache_clear()


# ------------------------------------------------------------------------------------------------ tokens


@pytest.mark.parametrize("item", RECORDED, ids=lambda item: item["caption"][:12])
def test_recorded_tokens_with_punkt(item, punkt):
    assert tokenize(item["caption"]) == item["tokens"]
    assert tokenize(item["caption"], "punkt") == item["tokens"]


@pytest.mark.parametrize("item", RECORDED, ids=lambda item: item["caption"][:12])
def test_recorded_tokens_with_the_word_tokenizer_alone(item):
    if item["caption"] == TWO_SENTENCES:
        assert tokenize(TWO_SENTENCES, "word") == ["two", "men", "talk.", "one", "of", "them", "laughs", "."]
    else:
        assert tokenize(item["caption"], "word") == item["tokens"]


@pytest.mark.parametrize("item", RECORDED, ids=lambda item: item["caption"][:12])
def test_recorded_tokens_of_the_released_code(item, punkt):
    """Under nltk 3.8.1, whatever version is here."""
    assert tokenize_released(item["caption"]) == item["tokens_released_code"]


def test_tokens_of_the_released_code_under_other_versions(punkt):
    """The first word stays glued to b'; what is no word of one letter is the same."""
    assert tokenize_released("A man .", split_one_letter=False)[:2] == ["b'a", "man"]
    assert tokenize_released("A man .")[:4] == ["b", "'", "a", "man"]
    assert tokenize_released("T shirt .")[:2] == ["b't", "shirt"]  # as if it were a clitic
    assert tokenize_released("Two men .") == tokenize_released("Two men .", split_one_letter=False)


@pytest.mark.parametrize("split", [tokenize_released, lambda caption: tokenize(caption, "punkt")])
def test_what_needs_punkt_says_so(no_punkt, split):
    with pytest.raises(UWMLError, match="captions: these tokens need nltk's Punkt; `make setup` downloads it"):
        split("A man, a dog.")


@pytest.mark.parametrize(("style", "split"), [("bytes", True), ("bytes_glued", False)])
def test_captions_encoded_as_released(punkt, style, split):
    words = Vocabulary([*SPECIALS, "b", "'", "a", "b'a", "man"])
    numbers = words.encode("A man", style)
    assert words.decode(numbers[1:-1]) == tokenize_released("A man", split)
    assert words.decode(words.encode("A man")[1:-1]) == ["a", "man"]


def test_without_punkt_the_word_tokenizer_is_taken(no_punkt):
    assert vocabulary.available_tokenizer() == "word"
    assert tokenize(TWO_SENTENCES) == tokenize(TWO_SENTENCES, "word")


def test_punkt_left_in_pieces_counts_as_absent(no_punkt):
    tokenizers = no_punkt / "tokenizers"
    tokenizers.mkdir(parents=True)
    for damage in (
        lambda: (tokenizers / "punkt_tab.zip").write_bytes(b"half a download"),
        lambda: (tokenizers / "punkt_tab/english").mkdir(parents=True),
    ):
        damage()
        vocabulary._punkt.cache_clear()
        assert vocabulary.available_tokenizer() == "word"


@pytest.fixture
def no_nltk(monkeypatch):
    """Be a machine without nltk."""
    for name in ("nltk", "nltk.tokenize", "nltk.tokenize.punkt"):
        monkeypatch.setitem(sys.modules, name, None)
    vocabulary._punkt.cache_clear()
    yield
    vocabulary._punkt.cache_clear()


@pytest.mark.parametrize("item", RECORDED, ids=lambda item: item["caption"][:12])
def test_recorded_tokens_without_nltk(item, no_nltk):
    """But for quotation marks, which nltk writes in a way of its own."""
    marks = {"``": '"', "''": '"'}
    expected = (
        item["tokens"] if item["caption"] != TWO_SENTENCES else ["two", "men", "talk", ".", "one", *item["tokens"][5:]]
    )
    assert tokenize(item["caption"]) == [marks.get(token, token) for token in expected]


def test_a_vocabulary_made_without_nltk_is_read_alike_with_it(tmp_path, monkeypatch, no_nltk, capsys):
    assert vocabulary.available_tokenizer() == "plain"
    made = Vocabulary.build(4 * ['the dog\'s "ball", a man .'])
    made.save(tmp_path / "vocabulary.json")
    numbers = made.encode('a "ball"')
    assert made.decode(numbers[1:-1]) == ["a", '"', "ball", '"']
    with pytest.raises(UWMLError, match="captions: these tokens need nltk's Punkt"):
        tokenize_released("A man .")
    download_punkt()
    assert re.search(r"not to be had \(.*nltk.*\); captions", capsys.readouterr().out)
    with pytest.warns(UserWarning, match="made with the Punkt .*, read here with the plain expression"):
        Vocabulary.load(released_json(tmp_path / "vocab.json"))
    monkeypatch.undo()
    vocabulary._punkt.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Vocabulary.load(tmp_path / "vocabulary.json").encode('a "ball"') == numbers


CONTRACTIONS = ("cannot", "gimme", "gonna", "gotta", "lemme", "wanna")
PIECES = [*"ab019 ..é-_,'\n", "  ", "got", "ta", "can", "not", "mr.", "u.s.", *(f" {word} " for word in CONTRACTIONS)]


@pytest.mark.parametrize("tokenizer", ["word", "punkt"])
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=12))
@example(pieces=[f"a {word} " for word in CONTRACTIONS])
@example(pieces=["a man, who runs ."])
@example(pieces=["mr. b runs. he"])
def test_plain_captions_are_split_as_nltk_splits_them(request, tokenizer, pieces):
    if tokenizer == "punkt":
        request.getfixturevalue("punkt")
    caption = "".join(pieces)
    for text in (caption, *pieces):
        assert tokenize(text, tokenizer) == nltk.word_tokenize(text, preserve_line=tokenizer == "word")


# ------------------------------------------------------------------------------------------------ words


def test_build():
    captions = ["a dog", "A DOG runs", "a cat", "a dog", "a dog <pad>"]
    built = Vocabulary.build(captions, threshold=4)
    assert built.words == [*SPECIALS, "a", "dog"]
    assert SPECIALS == ("<pad>", "<start>", "<end>", "<unk>")
    assert [built.index[word] for word in SPECIALS] == [0, 1, 2, 3]
    assert len(built) == 6
    assert "runs" in Vocabulary.build(captions, threshold=1).index
    assert Vocabulary.build(3 * ["dog"]).words == list(SPECIALS)  # the source keeps what occurs four times
    assert Vocabulary.build(4 * ["dog"]).words == [*SPECIALS, "dog"]


def test_encode_and_decode():
    words = Vocabulary([*SPECIALS, "a", "dog", "."])
    assert words.encode("A dog, a CAT.") == [1, 4, 5, 3, 4, 3, 6, 2]
    assert words.decode([1, 5, 3, 2, 0]) == ["<start>", "dog", "<unk>", "<end>", "<pad>"]
    assert words.encode("") == [1, 2]


def test_a_vocabulary_made_with_the_word_tokenizer_keeps_to_it():
    assert Vocabulary([*SPECIALS, "talk.", "talk"], "word").encode(TWO_SENTENCES)[3] == 4


@pytest.mark.slow
def test_real_captions(shared, punkt):
    built = build_vocabulary(shared / "data/f8k_precomp")
    assert len(built) == 3178
    assert built.tokenizer == "punkt"
    for split in ("train", "dev"):
        for caption in read_lines(shared / f"data/f8k_precomp/{split}_caps.txt"):
            assert tokenize(caption) == nltk.word_tokenize(caption.lower())


# ------------------------------------------------------------------------------------------------ files


def test_round_trip(tmp_path):
    made = Vocabulary.build(4 * ["a dog", "café ``"])
    made.save(tmp_path / "vocabulary.json")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = Vocabulary.load(tmp_path / "vocabulary.json")
    assert (read.words, read.index, read.tokenizer) == (made.words, made.index, made.tokenizer)
    content = json.loads((tmp_path / "vocabulary.json").read_text(encoding="utf-8"))
    assert content["word2idx"]["<end>"] == 2
    assert content["idx2word"]["2"] == "<end>"
    assert content["idx"] == len(made)


def test_the_word_tokenizer_is_kept(tmp_path, no_punkt):
    Vocabulary.build(4 * ["a dog"]).save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json").tokenizer == "word"


def released_json(path, **changes):
    words = [*SPECIALS, "dog", "a"]
    content = {"word2idx": {word: k for k, word in enumerate(words)}, "idx2word": dict(enumerate(words)), "idx": 6}
    path.write_text(json.dumps(content | changes), encoding="utf-8")
    return path


def test_released_json_was_made_with_punkt(tmp_path, punkt):
    read = Vocabulary.load(released_json(tmp_path / "vocab.json"))
    assert read.tokenizer == "punkt"
    assert read.words == [*SPECIALS, "dog", "a"]


def test_recorded_released_json(punkt):
    read = Vocabulary.load(GOLDEN / "tiny_vocab.json")
    assert len(read) == 24
    assert read.index["word7"] == 11


def test_numbers_decide_not_the_order_in_the_file(tmp_path):
    word2idx = {"dog": 4, "<unk>": 3, "<end>": 2, "<start>": 1, "<pad>": 0}
    path = released_json(tmp_path / "vocab.json", word2idx=word2idx, tokenizer=vocabulary.available_tokenizer())
    assert Vocabulary.load(path).words == [*SPECIALS, "dog"]


def test_another_tokenizer_than_the_one_here_is_said(tmp_path, no_punkt):
    with pytest.warns(UserWarning, match="made with the Punkt .*, read here with the word tokenizer alone") as seen:
        read = Vocabulary.load(released_json(tmp_path / "vocab.json"))
    assert "vocab.json" in str(seen[0].message)
    assert read.encode("a dog")[1:3] == [5, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not readable as JSON"),
        ("{", "not readable as JSON"),
        ("[1]", "expected a JSON dict"),
        ("{}", "word2idx: found .*, expected a number for every word"),
        ('{"word2idx": ["a"]}', "word2idx: found .*, expected a number for every word"),
        ('{"word2idx": {}}', "expected <pad> <start> <end> <unk>"),
        ('{"word2idx": {"<pad>": 0, "<start>": 1, "<end>": 2, "<unk>": 4}}', "without holes"),
        ('{"word2idx": {"<pad>": 0, "<start>": 1, "<end>": 2, "<unk>": 3, "a": 3}}', "without holes"),
        ('{"word2idx": {"<pad>": 0, "<start>": 1, "<end>": 2, "<unk>": null}}', "without holes"),
        ('{"word2idx": {"<pad>": 1, "<start>": 0, "<end>": 2, "<unk>": 3}}', "expected <pad> <start> <end> <unk>"),
        (
            '{"word2idx": {"<pad>": 0, "<start>": 1, "<end>": 2, "<unk>": 3}, "tokenizer": "bpe"}',
            "tokenizer: found 'bpe'",
        ),
        ('{"word2idx": {"<pad>": 0, "<start>": 1, "<end>": 2, "<unk>": 3}, "tokenizer": []}', r"tokenizer: found \[\]"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "vocab.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UWMLError, match=message) as error:
        Vocabulary.load(path)
    assert str(path) in str(error.value)


def test_missing_and_binary_files(tmp_path):
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for name, message in (("absent.json", "no such file"), ("binary.json", "not readable"), (".", "not readable")):
        with pytest.raises(UWMLError, match=message):
            Vocabulary.load(tmp_path / name)


def test_bad_words():
    with pytest.raises(UWMLError, match="expected <pad> <start> <end> <unk>"):
        Vocabulary(["dog"])
    with pytest.raises(UWMLError, match="found 'dog' twice"):
        Vocabulary([*SPECIALS, "dog", "dog"])


# ------------------------------------------------------------------------------------------------ the download


def failing(*arguments, **keywords):
    raise OSError("no route to host")


@pytest.mark.parametrize("download", [lambda *arguments, **keywords: False, failing])
def test_a_download_that_fails_is_one_sentence(no_punkt, monkeypatch, capfd, download):
    monkeypatch.setattr(nltk, "download", download)
    download_punkt()
    out, err = capfd.readouterr()
    assert out.startswith("Punkt sentence tokenizer: not to be had")
    assert out.count("\n") == 1
    assert ("no route to host" in out) == (download is failing)
    assert err == ""
    assert socket.getdefaulttimeout() is None


def test_a_download_that_works(no_punkt, monkeypatch, capsys):
    signature = inspect.signature(nltk.download)

    def download(name, download_dir, **keywords):
        signature.bind(name, download_dir, **keywords)
        assert (name, download_dir) == ("punkt_tab", str(no_punkt))
        english = no_punkt / "tokenizers/punkt_tab/english"
        english.mkdir(parents=True)
        for file in ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt"):
            (english / file).write_text("")

    monkeypatch.setattr(nltk, "download", download)
    download_punkt()
    assert capsys.readouterr().out == f"Punkt sentence tokenizer: in {no_punkt}\n"
    assert vocabulary.available_tokenizer() == "punkt"
    assert nltk.data.path == [], "nltk's own list stays as it was"


def test_nothing_is_downloaded_twice(punkt, monkeypatch, capsys):
    monkeypatch.setattr(nltk, "download", failing)
    download_punkt()
    assert capsys.readouterr().out == ""


# ------------------------------------------------------------------------------------------------ what it covers


@pytest.mark.parametrize(
    "caption", ["\u4e00\u53ea\u72d7{i}\u5728\u96ea\u5730\u91cc", "\u72d7{i} .", "dog{i}runs", "..."]
)
def test_a_vocabulary_without_a_word_is_refused(tmp_path, caption):
    """Of captions without blanks between words each is a word of its own, and a training would see `<unk>` alone."""
    for split in ("train", "dev"):
        write_split(tmp_path, split, np.zeros((5, 1, 1)), [caption.format(i=i) for i in range(5)])
    with pytest.raises(UWMLError, match="train_caps.txt and dev_caps.txt: found no word often enough for a vocabulary"):
        build_vocabulary(tmp_path)


def test_the_share_of_words_that_are_covered(tmp_path):
    words = Vocabulary([*SPECIALS, "a", "dog"], "plain")
    texts = {"train": ["a dog", "A dog"], "test": ["a dog in snow", "a cat"], "dev": ["some cats", "many mice"]}
    for split, captions in texts.items():
        write_split(tmp_path, split, np.eye(2)[:, None], captions)
    sets = {split: PrecomputedDataset(tmp_path, split, words) for split in texts}
    covered = words_covered({name: sets[name] for name in ("train", "test")})
    assert covered == {"train": 1, "test": 0.5}
    assert coverage_line(covered) == "words that the vocabulary has: train 100.0 %, test 50.0 %"
    with pytest.raises(UWMLError, match="dev_caps.txt: found no word that the vocabulary has"):
        words_covered(sets)


def test_vectors_have_no_words(tmp_path):
    write_tiny(tmp_path)
    write_caption_vectors(tmp_path)
    covered = words_covered({"dev": PrecomputedDataset(tmp_path, "dev", caption_style="vectors")})
    assert covered == {}
    assert coverage_line(covered) == ""
