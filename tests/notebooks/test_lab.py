"""The notebooks in the real JupyterLab, in a real browser: opened, run from top to bottom, and a slider moved."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from uwml_lib.studies import STUDIES
from uwml_lib.support.paths import NOTEBOOKS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("browser")]  # which is asked for before anything is run

STUDY_OF = {stem: name for name, study in STUDIES.items() for stem in study.notebooks}
NAMES = sorted(STUDY_OF)
TOKEN = "for-the-test"
IDLE = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
RUN = """async () => {
  await jupyterapp.commands.execute("notebook:run-all-cells");
  const cells = [...jupyterapp.shell.currentWidget.content.widgets].filter(cell => cell.model.type === "code");
  return cells.map(cell => [...Array(cell.model.outputs.length).keys()].map(n => cell.model.outputs.get(n).toJSON()));
}"""


@pytest.fixture(scope="module")
def lab(smoke, compared, faithful, modelled, filmed, tmp_path_factory):
    """A JupyterLab with copies of the notebooks, set to the small data, beside what the pipeline made of these."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(NOTEBOOKS, folder / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for path in (folder / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if "parameters" in cell.metadata.get("tags", []):
                cell.source = cell.source.replace('"scenes"', '"scenes_smoke"').replace('"clips"', '"clips_smoke"')
        nbformat.write(notebook, path)
    yield from serve(folder, smoke[0])


@pytest.fixture
def clean_lab(tmp_path):
    """A JupyterLab on the notebooks as they are, where nothing has been run."""
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    yield from serve(tmp_path, tmp_path / "home")


def serve(folder: Path, home: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = folder / "settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    own |= {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_PREFER_ENV_PATH": "1", "UWML_HOME": str(home)}
    options = {
        "ip": "127.0.0.1", "port": port, "IdentityProvider.token": TOKEN, "ServerApp.root_dir": folder,
        "LabApp.expose_app_in_browser": True,
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in options.items()]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", *words],
            env={**os.environ, **own}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/api/status?token={TOKEN}", folder / "server.log")
        yield address
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def wait_for(address: str, log: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.5)


@pytest.fixture
def open_notebook(browser):
    contexts = []

    def opened(address, name):
        context = browser.new_context(viewport={"width": 1300, "height": 1000})
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(180_000)
        tab.goto(f"{address}/lab/workspaces/{name}/tree/notebooks/{name}.ipynb?reset&token={TOKEN}")
        tab.wait_for_function(IDLE)
        return tab

    yield opened
    for context in contexts:
        context.close()


def errors(outputs) -> list[str]:
    return [item["evalue"] for cell in outputs for item in cell if item["output_type"] == "error"]


@pytest.mark.parametrize("name", NAMES)
def test_run_all(lab, open_notebook, name):
    outputs = open_notebook(lab, name).evaluate(RUN)
    assert errors(outputs) == []
    figures = [item for cell in outputs for item in cell if "image/png" in item.get("data", {})]
    assert figures or name in ("09_fidelity", "12_your_own_model")


def test_a_slider_moves_the_curve(lab, open_notebook):
    tab = open_notebook(lab, "05_weight_functions")
    tab.evaluate(RUN)
    figure = tab.locator(".widget-output img")
    figure.scroll_into_view_if_needed()
    before = figure.get_attribute("src")
    handle = tab.locator(".noUi-handle").nth(1)  # p1: the constant p0 has no part in a weight
    handle.focus()
    for _ in range(20):
        handle.press("ArrowRight")
    tab.wait_for_function("before => document.querySelector('.widget-output img')?.src !== before", arg=before)


def test_from_a_clean_state_and_in_any_order_a_sentence_says_what_to_run_first(clean_lab, open_notebook):
    """And that there is a small version; of several kinds, one that needs nothing among them."""
    need_nothing = ("00_start_here", "05_weight_functions")
    for name in ("11_video_text", "07_loss_comparison", *need_nothing, "04_evaluation"):
        found = errors(open_notebook(clean_lab, name).evaluate(RUN))
        assert len(found) == (name not in need_nothing), found
        if found:
            stage, dataset = STUDY_OF[name], "clips" if "video" in name else "scenes"
            assert f"no finished runs on {dataset} yet: `make {stage} DATASET={dataset}` makes them" in found[0]
            assert f'`make {stage} PROFILE=smoke` and DATASET = "{dataset}_smoke" show it in small' in found[0]
