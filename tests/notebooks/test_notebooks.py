"""The notebooks as committed, and the runner that executes them."""

import nbformat
import papermill
import pytest

from uwml_lib.reports.site.sources import executed
from uwml_lib.studies import STUDIES, notebooks
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.paths import CHECKOUT, NOTEBOOKS

ALL = sorted(NOTEBOOKS.glob("*.ipynb"))
INSTALL = """\
# On Colab or Binder: install the kit if it is missing
import importlib.util

if importlib.util.find_spec("uwml_lib") is None:
    %pip install -q "uwml-kit[notebooks]"
"""[:-1]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_committed_notebook(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert max(len(cell.source.splitlines()) for cell in code) <= 30
    assert notebook.cells[0].source.startswith("# ")


def test_every_notebook_or_none_begins_by_installing_what_is_missing():
    """The first code cell, tagged `install`, which pages leave out: for Colab and Binder, where the kit is missing."""
    notebooks = [nbformat.read(path, as_version=4) for path in ALL]
    first = [next(cell for cell in notebook.cells if cell.cell_type == "code") for notebook in notebooks]
    assert {cell.source for cell in first if "install" in cell.metadata.get("tags", ())} <= {INSTALL}
    assert len({"install" in cell.metadata.get("tags", ()) for cell in first}) == 1


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_parameters_are_understood_and_explained(path):
    parameters = papermill.inspect_notebook(path)
    assert {"DATASET", "DATA_ROOT"} <= set(parameters)
    for name, parameter in parameters.items():
        assert name.isupper()
        assert parameter["help"], f"{name} has no comment"


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_links_between_notebooks_lead_somewhere(path):
    import re

    for cell in nbformat.read(path, as_version=4).cells:
        for target in re.findall(r"\]\(([^)#]+\.ipynb)\)", cell.source):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_styled_tables_of_texts_escape_them(path):
    """A Styler, other than a plain table, would put a caption's markup into the page."""
    for cell in nbformat.read(path, as_version=4).cells:
        if (
            cell.cell_type == "code"
            and ".style" in cell.source
            and ("caption" in cell.source or "query" in cell.source)
        ):
            assert 'escape="html"' in cell.source


def small_notebook(folder, source):
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell("NUMBER = 1  # a number", metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(source),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    path = folder / "01_small.ipynb"
    nbformat.write(notebook, path)
    return path


def run(path, parameters, folder, inputs="digest"):
    lines = []
    return notebooks.execute(path, parameters, folder, inputs, lines.append), lines


def test_executed_once_and_again_when_something_changed(tmp_path):
    path = small_notebook(tmp_path, "print(NUMBER * 2)")
    done, lines = run(path, {"NUMBER": 21}, tmp_path / "out")
    assert nbformat.read(done, as_version=4).cells[-1].outputs[0].text == "42\n"
    assert lines == ["01_small: executing"]
    assert run(path, {"NUMBER": 21}, tmp_path / "out")[1] == ["01_small: executed before"]
    assert run(path, {"NUMBER": 22}, tmp_path / "out")[1] == ["01_small: executing"]
    assert run(path, {"NUMBER": 22}, tmp_path / "out", inputs="other")[1] == ["01_small: executing"]


def test_a_kernel_killed_at_work_leaves_nothing_beside_the_notebooks(tmp_path):
    path = small_notebook(tmp_path, "import os\nprint(*os.listdir())")
    done, _ = run(path, {}, tmp_path / "out")
    assert "ipc" not in nbformat.read(done, as_version=4).cells[-1].outputs[0].text


def test_failed_notebook_is_never_called_done(tmp_path):
    path = small_notebook(tmp_path, "raise RuntimeError('no luck')")
    out = tmp_path / "out"
    for _ in range(2):
        with pytest.raises(UWMLError, match=r"01_small.ipynb: a cell failed with RuntimeError: no luck"):
            run(path, {"NUMBER": 1}, out)
        assert [file.name for file in out.iterdir()] == ["01_small.failed.ipynb"]
    small_notebook(tmp_path, "print('better')")
    run(path, {"NUMBER": 1}, out)
    assert [file.name for file in out.iterdir()] == ["01_small.ipynb"]


def test_unknown_parameter_names_the_nearest(tmp_path):
    path = small_notebook(tmp_path, "print(NUMBER)")
    with pytest.raises(UWMLError, match="has no parameter NUMBR; did you mean 'NUMBER'?"):
        run(path, {"NUMBR": 1}, tmp_path / "out")


def test_copies_of_something_else_are_removed_before_the_first_is_executed(tmp_path):
    path, out = small_notebook(tmp_path, "print(NUMBER)"), tmp_path / "out"
    run(path, {"NUMBER": 1}, out)
    broken = path.rename(tmp_path / "00_broken.ipynb")
    small_notebook(tmp_path, "print(NUMBER)")
    nbformat.write(nbformat.v4.new_notebook(), broken)
    (out / "01_other.part.ipynb").write_text("half")
    notebooks.execute_all([path], {"NUMBER": 1}, out, "digest", lambda line: None)
    assert [copy.name for copy in executed(out)] == ["01_small.ipynb"]
    with pytest.raises(UWMLError, match="00_broken.ipynb: has no parameter"):
        notebooks.execute_all([broken, path], {"NUMBER": 1}, out, "other digest", lambda line: None)
    for copy in executed(out):  # it may have been executed beside the broken one
        assert notebooks.is_current(path, {"NUMBER": 1}, out, "other digest"), copy


WAITS = """
import pathlib, time
place = pathlib.Path({place!r})
(place / "seen{n}").touch()
while len([*place.glob("seen*")]) < 2:
    time.sleep(0.05)
"""


def test_notebooks_are_executed_side_by_side(tmp_path, monkeypatch):
    """Each waits for the other, which would be for ever if it came after it."""
    monkeypatch.setattr(notebooks, "TIMEOUT", 60)
    monkeypatch.setattr(notebooks, "workers", lambda threads: 2)
    both = []
    for n in (2, 3):
        path = small_notebook(tmp_path, WAITS.format(place=str(tmp_path), n=n))
        both.append(path.rename(tmp_path / f"0{n}_waits.ipynb"))
    notebooks.execute_all(both, {"NUMBER": 1}, tmp_path / "out", "digest", lambda line: None)
    assert len(executed(tmp_path / "out")) == 2


def test_a_damaged_copy_is_executed_anew(tmp_path):
    path, out = small_notebook(tmp_path, "print(NUMBER)"), tmp_path / "out"
    run(path, {"NUMBER": 1}, out)
    (out / path.name).write_text('{"cells": [')
    assert executed(out) == []
    run(path, {"NUMBER": 1}, out)
    assert executed(out) == [out / path.name]


def test_without_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    with pytest.raises(UWMLError, match="a study needs the checkout"):
        notebooks.paths_of(STUDIES["reproduce"], "scenes")


def test_a_notebook_depends_on_what_it_imports_and_on_nothing_else():
    def sources(code):
        found = notebooks.sources_of(code)
        return {path.relative_to(CHECKOUT / "uwml_lib").as_posix() for path in found}

    of_a_loss = sources("from uwml_lib.losses import TripletLoss")
    assert {"__init__.py", "losses/__init__.py", "losses/triplet.py", "losses/base.py"} <= of_a_loss
    assert all(name.startswith("losses/") for name in of_a_loss - {"__init__.py"})
    assert "reports/figures/style.mplstyle" in sources("from uwml_lib.reports import figures")
    assert "training/trainer.py" in sources("def later():\n    from uwml_lib.training import train")
    assert "training/trainer.py" in sources("from uwml_lib.cli import uwml")  # whose commands are imported when called
    assert sources("print(1)") == set()


def test_a_change_of_what_it_imports_executes_it_again(tmp_path, monkeypatch):
    path, out = small_notebook(tmp_path, "print(NUMBER)"), tmp_path / "out"
    imported = tmp_path / "module.py"
    imported.write_text("1")
    monkeypatch.setattr(notebooks, "CHECKOUT", tmp_path)
    monkeypatch.setattr(notebooks, "sources_of", lambda code: {imported})
    run(path, {"NUMBER": 1}, out)
    assert notebooks.is_current(path, {"NUMBER": 1}, out, "digest")
    imported.write_text("2")
    assert not notebooks.is_current(path, {"NUMBER": 1}, out, "digest")


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_cells_for_the_machine_say_so(path):
    for cell in nbformat.read(path, as_version=4).cells:
        records = cell.cell_type == "code" and "record(" in cell.source
        assert records == ("machine" in cell.metadata.get("tags", [])), cell.source


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_what_is_read_is_short(path):
    """The cell of imports is folded on pages, and what is for the machine hidden; a reader sees at most 15 lines."""
    imports, *others = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert imports.source.startswith(("import ", "from ")) and imports.metadata["tags"] == ["hide-input"]
    for cell in others:
        if "machine" not in cell.metadata.get("tags", []):
            assert len(cell.source.splitlines()) <= 15, cell.source
