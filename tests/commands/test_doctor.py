"""What `uwml doctor` finds, and what it says to do."""

import numpy as np
import pytest

from tests.tiny import write_tiny
from uwml_lib import cli
from uwml_lib.commands import doctor
from uwml_lib.commands.doctor import examine
from uwml_lib.support import paths


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    monkeypatch.setattr(paths, "REPORTS", tmp_path / "reports")


def checks(*arguments):
    return {check.name: check for check in examine(*arguments)}


def test_a_machine_that_will_do(tmp_path):
    write_tiny(tmp_path / "tiny")
    found = checks("tiny", str(tmp_path))
    assert all(check.ok for name, check in found.items() if "Punkt" not in name)
    assert found["data"].found.startswith("tiny, images: train")
    assert str(found["Python"]).startswith("[OK] Python: 3.")


def test_embedded_data_needs_no_punkt(monkeypatch):
    monkeypatch.setattr(doctor, "available_tokenizer", lambda: "word")
    assert checks()["Punkt sentence tokenizer"].ok
    assert not checks("f30k_precomp")["Punkt sentence tokenizer"].ok


def test_missing_data_and_damaged_data(tmp_path):
    missing = checks("nothing", str(tmp_path))["data"]
    assert not missing.ok
    assert "nothing: no such folder; expected nothing in the SCAN layout" in str(missing)
    photographs = checks("flickr8k", str(tmp_path))["data"]
    assert "flickr8k/train_caps.txt: no such file; `make data DATASET=flickr8k DATA_ROOT=" in str(photographs)
    write_tiny(tmp_path / "tiny")
    (tmp_path / "tiny" / "dev_ims.npy").write_bytes(b"short")
    assert "dev_ims.npy: not readable" in str(checks("tiny", str(tmp_path))["data"])


def test_splits_that_do_not_fit_together(tmp_path):
    write_tiny(tmp_path / "tiny")
    path = tmp_path / "tiny" / "dev_ims.npy"
    np.save(path, np.load(path)[:, :, :4])
    assert "dev_ims.npy: found 4 numbers a region" in str(checks("tiny", str(tmp_path))["data"])


def test_a_file_where_a_folder_is_wanted(tmp_path):
    (tmp_path / "reports").write_text("a file")
    assert not checks()["report folder"].ok


def test_too_little_memory_or_disk_or_a_package_less(monkeypatch):
    monkeypatch.setattr(doctor, "NEEDED_MEMORY", 1e18)
    monkeypatch.setattr(doctor, "NEEDED_DISK", 1e18)
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    found = checks()
    assert [name for name, check in found.items() if not check.ok] == ["packages", "memory", "disk"]
    assert str(found["packages"]) == "[FAIL] packages: no-such-package not installed: make setup"


def test_the_command_fails_if_a_check_does(tmp_path, capsys):
    assert cli.main(["doctor", "--dataset", "nothing", "--data-root", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert "[FAIL] data" in output.out
    assert "failed; see the lines that begin with [FAIL]" in output.err
