"""The command line: help, presets, and errors that are a sentence and an exit code."""

import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.tiny import write_split, write_tiny
from uwml_lib import __version__
from uwml_lib.cli import COMMANDS, main, parse, uwml
from uwml_lib.config import ExperimentConfig, StudyOptions, preset
from uwml_lib.evaluation import released_lines
from uwml_lib.losses import LOSSES
from uwml_lib.released.flags import describe
from uwml_lib.released.published import row_config
from uwml_lib.runs.provenance import provenance
from uwml_lib.studies import STUDIES
from uwml_lib.support import numerics, paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, write_json
from uwml_lib.support.paths import CHECKOUT

TINY = [
    "--embed-size", "8", "--word-dim", "6", "--epochs", "1", "--batch-size", "16", "--device", "cpu",
    "--dataset", "tiny", "--data-root",
]  # fmt: skip
SMALL = ["--epochs", "1", "--batch-size", "8", "--embed-size", "8", "--word-dim", "6", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _audits_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "AUDITS", tmp_path / "audits")


@pytest.fixture
def data_root(tmp_path):
    write_tiny(tmp_path / "data/tiny")
    return tmp_path / "data"


# ------------------------------------------------------------------------------------------------ help


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_usage_names_every_command(arguments, capsys):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert __version__ in out
    assert all(f"uwml {command}" in out for command in COMMANDS)


@pytest.mark.parametrize("watched", [True, False])
def test_a_notebook_shows_a_command_and_what_it_prints(data_root, monkeypatch, capsys, watched):
    monkeypatch.setenv("UWML_HEADLESS", "" if watched else "1")
    uwml("data --dataset tiny --data-root", data_root)
    first, *others = capsys.readouterr().out.splitlines()
    assert first == f"$ uwml data --dataset tiny --data-root {data_root}"
    assert any(line.startswith("train: ") for line in others)
    uwml("data --dataset tiny --data-root", data_root, quiet=True)
    assert capsys.readouterr().out.splitlines() == [first]


def test_a_notebook_shows_errors_among_the_rest(capsys):
    """On the standard error they would be in red, and out of order."""
    uwml("data --dataset", "no such")
    out, err = capsys.readouterr()
    assert not err
    assert out.startswith("$ uwml data --dataset 'no such'\nuwml data: ")


def test_a_notebook_shows_paths_from_its_folder(data_root, monkeypatch, capsys):
    """Those of a temporary folder would be others every time."""
    monkeypatch.chdir(data_root)
    monkeypatch.setenv("UWML_HEADLESS", "1")
    uwml("train --loss infonce --dataset tiny --data-root . --loss-options", '{"margin": 1}')
    uwml("data --dataset gone --data-root .")
    assert str(data_root) not in capsys.readouterr().out


def test_usage_needs_nothing_and_says_what_the_commands_need():
    program = (
        "import sys; sys.modules['tyro'] = None; from uwml_lib.cli import main; main(['--help']); "
        "print(*{'torch', 'numpy', 'uwml_lib.config'} & set(sys.modules)); sys.exit(main(['data']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.endswith("130 stopped by Ctrl-C.\n\n")
    assert done.stderr.startswith("uwml data: this needs packages that are not installed: `make setup`, or pip install")


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"uwml {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command, capsys):
    function = pkgutil.resolve_name(f"uwml_lib.{COMMANDS[command]}")
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: uwml {command} [-h]")
    assert function.__doc__.split("\n")[0] in out
    explained = re.findall(r"^    (\w+): ", inspect.getdoc(function), re.MULTILINE)
    parameters = inspect.signature(function).parameters
    assert parameters.keys() - {"say", "experiment", "training"} <= set(explained)
    usage = re.sub(r"\s+", " ", out.partition("\n\n")[0])
    assert all(name.upper() in usage for name, of in parameters.items() if of.kind == of.POSITIONAL_ONLY)
    assert "--say" not in out
    if command in STUDIES:
        options = {*StudyOptions.__dataclass_fields__, "batch_size", "embed_size"} - {"others"}
        assert all(f"--{name.replace('_', '-')}" in out for name in options)


def test_help_of_train_explains_every_setting(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = capsys.readouterr().out
    for name in ExperimentConfig.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in out


def test_help_of_the_release_explains_its_flags(capsys):
    with pytest.raises(SystemExit):
        main(["train-released", "--help"])
    assert describe() in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ settings


def settings(*words):
    """The settings that the words after `uwml train` give."""
    return parse("train", words).keywords["experiment"]


@pytest.mark.parametrize("dataset", ["scenes", "f8k_precomp", "mine"])
def test_the_data_set_brings_its_preset(dataset):
    assert settings(f"--dataset={dataset}") == preset(dataset)
    assert settings("--epochs", "3", "--seed", "2", "--dataset", dataset) == preset(dataset, epochs=3, seed=2)


def test_the_default_data_set():
    assert settings() == preset("scenes")


def test_a_published_row_brings_its_settings():
    wanted = row_config("coco5k_triplet_i2t_lse")
    found = settings("--row", "coco5k_triplet_i2t_lse", "--data-root", "/data", "--seed", "3")
    assert found == replace(wanted, data_root="/data", seed=3)
    changed = settings("--lambda-lse", "7", "--dataset", "mine", "--row=coco5k_triplet_i2t_lse")
    assert changed == replace(wanted, lambda_lse=7.0, dataset="mine")


def test_released_flags_and_the_kits_own_options(capsys):
    words = "--data_name f30k_precomp --max_violation --bi_gru --margin 0.1 --workers 4 --seed 2 --run-folder x"
    call = parse("train-released", [*words.split(), "--loss=triplet", "--loss-options", '{"reduction": "mean"}'])
    assert call.keywords["run_folder"] == Path("x")
    assert call.keywords["experiment"] == ExperimentConfig(
        dataset="f30k_precomp", data_root="./data/", direction="t2i", aggregation="LogSumExp", loss="triplet",
        twins="ignored", loss_options={"margin": 0.1, "reduction": "mean"}, seed=2,
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert err == "uwml train-released: --workers is ignored: it does nothing in the release\n"
    assert out == ""


def test_every_kind_of_setting_can_be_given():
    words = (
        "--loss triplet --learning-rate 0.1 --lambda-softmax 3 --no-bidirectional --weight-norm --direction t2i "
        "--mixed-precision bf16 --max-images 7"
    )
    options = ["--loss-options", '{"margin": 0.1, "positive_ceiling": null, "positive": [1, -1]}']
    expected = preset(
        "scenes", loss="triplet", learning_rate=0.1, lambda_softmax=3.0, bidirectional=False, weight_norm=True,
        direction="t2i", mixed_precision="bf16", max_images=7,
        loss_options={"margin": 0.1, "positive_ceiling": None, "positive": [1, -1]},
    )  # fmt: skip
    assert settings(*words.split(), *options) == expected


def test_what_auto_stands_for_is_settled_with_the_options(monkeypatch):
    monkeypatch.setattr(numerics, "has_bf16_instructions", lambda: True)
    monkeypatch.setattr(numerics, "this_device", lambda: SimpleNamespace(type="cpu"))
    assert settings("--dataset", "flickr8k").mixed_precision == "bf16"
    narrow = settings("--dataset", "flickr8k", "--embed-size", "64")
    assert (narrow.mixed_precision, narrow.embed_size) == ("no", 64), "where it is not quicker, as in a study"
    monkeypatch.setattr(numerics, "this_device", lambda: SimpleNamespace(type="cuda"))
    for words, precision in ([], "no"), (["--device", "cpu"], "bf16"):
        assert settings("--dataset", "flickr8k", *words).mixed_precision == precision


def test_a_sweep_takes_no_settings_of_losses():
    for option in ("--settings", "--committed"):
        call = parse("sweep", [option, "somewhere"])
        with pytest.raises(UWMLError, match=f"{option[2:]}: found somewhere, expected none, for a sweep"):
            call()


def test_positional_arguments_and_options():
    call = parse("evaluate", ["one", "two", "--fold5", "--split", "dev"])
    assert (call.args, call.keywords["fold5"], call.keywords["split"]) == (((Path("one"), Path("two")),), True, "dev")
    call = parse("features", ["folder", "one.tsv", "--boxes", "4"])
    assert (call.args, call.keywords["boxes"]) == ((Path("folder"), [Path("one.tsv")]), 4)


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["trian"],
            "uwml: found 'trian', expected one of data, captions, features, msrvtt, pictures, doctor, train, ",
        ),
        (["data", "--dataset", "absent"], "no such folder; expected absent in the SCAN layout"),
        (["train", "--dataset", "absent"], "no such folder; expected absent in the SCAN layout"),
        (["train", "--loss", "hinge"], f"uwml train: loss: found 'hinge', expected one of {', '.join(LOSSES)}"),
        (["train", "--loss-options", '{"margn": 1}'], "uwml train: loss_options of polynomial: "),
        (["evaluate", "absent"], "config.json: no such file"),
        (["evaluate"], "models: found none, expected run folders or released checkpoints"),
        (["report", "--dataset", "absent"], "no finished runs on absent yet"),
        (["reproduce", "--seeds", "a b"], "seeds: found 'a b', expected whole numbers"),
        (["reproduce", "--seeds", "1 1"], "seeds: found '1 1', expected whole numbers such as '0 1 2', each once"),
        (["reproduce", "--epochs", "0"], "epochs: found 0, expected at least 1"),
        (["reproduce", "--dataset", "absent"], "no such folder; expected absent in the SCAN layout"),
        (["train", "--row", "f30k_triplet_i2t_las"], "row: found 'f30k_triplet_i2t_las'; did you mean 'f30k_triplet_i"),
        (["train", "--row", "f30k_ensemble"], "'f30k_ensemble', which this kit does not train (two models, scored tog"),
        (["train-released", "--max_violations"], "found the flag --max_violations; did you mean --max_violation?"),
        (["train-released", "--data_name", "absent"], "no such folder; expected absent in the SCAN layout"),
        (["train-released", "--loss-options", "[1]"], "invalid json_object value: '[1]'"),
        (["train-released", "--loss-options", "{"], "invalid json_object value: '{'"),
        (["train-released", "--loss-options", '{"a": 1, "a": 2}'], "invalid json_object value: "),
        (["train", "--loss-options", "[" * 9999], "recursion"),
        (["sweep", "--space", '{"margin": [1], "margin": [2]}'], "space: not readable as JSON (the key 'margin'"),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_code(arguments, words, capsys):
    assert main(arguments) in (1, 2)
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--epochs", "0"], "epochs: found 0, expected at least 1"),
        (["train", "--epochs", "many"], "--epochs"),
        (["train", "--direction", "i2i"], "i2i"),
        (["train", "--los", "triplet"], "--los"),
        (["train", "--loss-options", "{"], "--loss-options"),
        (["train", "--loss-options"], "--loss-options"),
        (["train", "--loss-options", "[1]"], "loss_options: found [1]"),
        (["convert", "checkpoint", "folder"], "--vocabulary"),
        (["train", "--dataset"], "--dataset"),
        (["evaluate", "run", "--split", "all"], "all"),
        (["reproduce", "--profile", "tiny"], "tiny"),
    ],
)
def test_what_cannot_be_parsed(arguments, words, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert words in out + err
    assert "Traceback" not in out + err


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="absent"):
        main(["--debug", "evaluate", "absent"])


def test_an_interruption_is_said(monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("uwml_lib.training.runner.train", interrupted)
    assert main(["train"]) == 130
    assert "continues" in capsys.readouterr().err


def test_several_processes_get_the_same_words(monkeypatch):
    launched = []
    monkeypatch.setattr("uwml_lib.training.processes.launch", lambda *arguments: launched.append(arguments))
    words = ["--json", "train", "--dataset", "scenes_smoke", "--processes", "2"]
    assert main(words) == 0
    assert launched == [(2, words)]


def test_the_module_is_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "uwml_lib.cli", "evaluate", "absent"], capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "uwml evaluate: absent/config.json: no such file\n"
    assert done.stdout == ""


# ------------------------------------------------------------------------------------------------ the commands


def test_data_says_what_is_in_a_folder(data_root, capsys):
    assert main(["data", "--dataset", "tiny", "--data-root", str(data_root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f"{split}: {size} images of 3 regions x 9 numbers, 2 captions each"
        for split, size in (("train", 40), ("dev", 12), ("test", 14))
    ]
    assert lines[3].startswith("words that the vocabulary has: train 100.0 %, dev 100.0 %, test 100.0 %; it has ")
    assert lines[4].split() == ["train", "dev", "test"]
    assert lines[5].split() == ["images", "40", "12", "14"]
    path = data_root / "tiny/train_ims.npy"
    features = np.load(path)
    features[-1, 0, 0] = np.nan
    np.save(path, features)
    assert main(["data", "--dataset", "tiny", "--data-root", str(data_root)]) == 1
    assert "train_ims.npy: image 39 (counted from 0) holds NaN" in capsys.readouterr().err
    (data_root / "tiny/dev_caps.txt").unlink()
    assert main(["data", "--dataset", "tiny", "--data-root", str(data_root)]) == 1
    assert "dev_caps.txt: no such file" in capsys.readouterr().err


def test_data_counts_one_and_the_same(tmp_path, capsys):
    folder = tmp_path / "one"
    write_split(folder, "train", np.ones((4, 1), np.float32), ["a dog", "a cat"] * 2)
    write_split(folder, "dev", np.ones((1, 3, 1), np.float32), ["a dog"])
    np.save(folder / "train_offsets.npy", np.array([0, 2, 4]))
    assert main(["data", "--dataset", "one", "--data-root", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "train: 2 images of 2 regions x 1 number, 2 captions each",
        "dev: 1 image of 3 regions x 1 number, 1 caption each",
    ]


def test_train_and_evaluate(data_root, tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["train", *TINY, str(data_root), "--run-folder", run]) == 0
    trained = capsys.readouterr().out
    results = read_json(tmp_path / "run/results.json")
    assert results["config"]["embed_size"] == 8
    assert f"  rsum {results['metrics']['rsum']:.1f}\n" in trained
    assert trained.endswith(f"{released_lines(results['metrics'])}\n{run}\n")
    assert main(["train", *TINY, str(data_root), "--run-folder", run]) == 0
    again = capsys.readouterr().out
    assert "finished before" in again
    assert main(["evaluate", run]) == 0
    evaluated = capsys.readouterr().out
    assert trained.endswith(evaluated)
    assert again.endswith(evaluated)


def test_a_run_of_damaged_settings(data_root, tmp_path, capsys):
    main(["train", *TINY, str(data_root), "--run-folder", str(tmp_path / "run")])
    content = read_json(tmp_path / "run/config.json")
    content["config"]["embed_sise"] = 3
    write_json(tmp_path / "run/config.json", content)
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run")]) == 1
    sentence = f"{tmp_path / 'run/config.json'}: configuration: unknown key 'embed_sise'; did you mean 'embed_size'?"
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--embed-size", "100000000"], "embed_size: found 100000000, expected at most 65,536"),
        (["--word-dim", str(10**30)], "word_dim: found 1000"),
        (["--threads", str(10**12)], "threads: found 1000000000000, expected at most 1,024"),
        (["--workers", "100000"], "workers: found 100000, expected at most 256"),
        (["--loss-options", '{"positive_ceiling": Infinity}'], "loss_options: found .*inf.*, expected values of JSON"),
        (["--loss-options", f'{{"margin": 1{"0" * 400}}}'], "loss_options: found"),
        (["--loss-options", '{"margin": 1, "margin": 2}'], "the key 'margin' stands more than once"),
        (["--loss-options", '{"positive": "123"}'], "positive: found '123', expected finite coefficients"),
        (["--loss-options", '{"positive": [true]}'], "positive: found"),
        (["--data-root", "~nobody-of-that-name/x"], "data_root: found '~nobody-of-that-name/x', expected a folder"),
    ],
)
def test_absurd_values_are_refused_at_once(options, message, data_root, capsys):
    try:
        code = main(["train", *TINY, str(data_root), *options])
    except SystemExit as stop:  # said by the parser
        code = stop.code
    assert code in (1, 2)
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_a_home_that_is_none():
    done = subprocess.run(
        [sys.executable, "-m", "uwml_lib.cli", "data"], env={**os.environ, "UWML_HOME": "~nobody-of-that-name"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("uwml data: UWML_HOME: found '~nobody-of-that-name', expected a folder")
    assert "Traceback" not in done.stderr


def test_a_terminal_without_arrows():
    code = "from uwml_lib import cli; from uwml_lib.commands import data; data.data = lambda: print('i→t'); "
    done = subprocess.run(
        [sys.executable, "-c", code + "cli.main(['data'])"], env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "i?t\n")


def test_seeds_without_a_number(capsys):
    assert main(["reproduce", "--seeds", ","]) == 1
    assert "seeds: found ','" in capsys.readouterr().err


def test_published_numbers_are_printed_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(paths, "REPORTS", tmp_path)
    assert main(["published"]) == 0
    assert capsys.readouterr().out == (tmp_path / "published.md").read_text(encoding="utf-8") + "\n"


def test_a_command_of_the_release_trains(data_root, tmp_path, capsys):
    flags = "--data_name tiny --bi_gru --embed_size 8 --word_dim 6 --num_epochs 1 --batch_size 16 --val_step 9"
    options = ["--data_path", str(data_root), "--device", "cpu", "--run-folder", str(tmp_path / "run")]
    assert main(["train-released", *flags.split(), *options]) == 0
    assert "rsum" in capsys.readouterr().out
    results = read_json(tmp_path / "run/results.json")
    assert results["config"]["aggregation"] == "LogSumExp"
    assert results["features"] == {"train": [40, 3, 9], "dev": [12, 3, 9], "test": [14, 3, 9]}


def test_evaluating_nothing_leaves_no_trace(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "typo/run")]) == 1
    assert "config.json: no such file" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_report_fills_the_published_table_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "REPORTS", tmp_path)
    study = SimpleNamespace(report=lambda runs: SimpleNamespace(to_markdown=lambda: f"table of {runs}", data={"a": 1}))
    monkeypatch.setattr("uwml_lib.studies.STUDIES", {"reproduce": study})
    monkeypatch.setattr("uwml_lib.runs.study_runs.load_study", lambda dataset, name: f"{dataset}, {name}")
    monkeypatch.setattr("uwml_lib.studies.build_pages", lambda: None)
    assert main(["report", "--dataset", "scenes"]) == 0
    assert capsys.readouterr().out == "table of scenes, reproduce\n"
    assert "| published |" in (tmp_path / "published.md").read_text(encoding="utf-8")


def test_json_is_all_that_the_standard_output_gets(capfd, monkeypatch):
    def found(dataset: str = "scenes"):
        print("to be read by people")
        os.system("echo by another process")
        return {"rsum": 1.5, "dataset": dataset}

    monkeypatch.setattr("uwml_lib.commands.data.data", found)
    for words in (["--json", "data", "--dataset", "x"], ["data", "--dataset", "x", "--json"]):
        assert main(words) == 0
        out, err = capfd.readouterr()
        assert json.loads(out) == {"rsum": 1.5, "dataset": "x"}
        assert "to be read by people" in err and "by another process" in err
    assert main(["data", "--dataset", "x"]) == 0
    assert "to be read by people" in capfd.readouterr().out  # the output is where it was


def test_json_of_an_error_is_a_sentence_on_the_standard_error(capfd):
    assert main(["--json", "report", "--dataset", "absent"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "no finished runs on absent yet" in err


def test_results_can_be_read_by_a_program(capfd, tmp_path):
    folder = write_tiny(tmp_path / "tiny")
    options = ["--dataset", "tiny", "--data-root", str(folder.parent), "--run-folder", str(tmp_path / "run")]
    assert main(["--json", "train", *options, *SMALL]) == 0
    trained = json.loads(capfd.readouterr().out)
    assert trained["config"]["epochs"] == 1
    assert main(["--json", "evaluate", str(tmp_path / "run")]) == 0
    assert json.loads(capfd.readouterr().out)["metrics"] == trained["metrics"]
    assert main(["--json", "data", *options[:4]]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["splits"]["train"]["images"] == 40
    assert found["words_covered"] == {"train": 1, "dev": 1, "test": 1}
    assert found["audit"]["counts"]["train"]["equal_images"] == {"train": 0}


def test_a_noted_command_says_nothing_of_where_files_lie(tmp_path, monkeypatch):
    words = ["compare", "--committed", str(tmp_path / "own results"), f"--data-root={CHECKOUT / 'data'}", "--seeds=0 1"]
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin/uwml"), *words, "data/mine"])
    noted = "uwml compare --committed '.../own results' --data-root=data '--seeds=0 1' data/mine"
    assert provenance("cpu")["command"] == noted


def test_a_run_notes_what_the_audit_found(tmp_path, capsys):
    folder = write_tiny(tmp_path / "tiny")
    for kind in ("ims.npy", "caps.txt"):
        shutil.copy(folder / f"train_{kind}", folder / f"test_{kind}")
    options = ["--dataset", "tiny", "--data-root", str(tmp_path)]
    assert provenance("cpu", data="not looked at")["audit"] is None
    assert main(["data", *options]) == 0
    warning = "also in train: 40 images and 80 captions of test"
    assert f"Warning: {warning}\n" in capsys.readouterr().out
    assert main(["train", *options, *SMALL, "--run-folder", str(tmp_path / "run")]) == 0
    for noted in (read_json(tmp_path / f"run/{name}.json")["provenance"] for name in ("config", "results")):
        assert warning in noted["audit"]["warnings"]
    out = capsys.readouterr().out
    covered = "words that the vocabulary has: train 100.0 %, dev 100.0 %, test 100.0 %"
    assert f"polynomial seed 0: {covered}" in out and "\n  words that the vocabulary has: test 100.0 %\n" in out
