"""What several test modules share."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

# The same examples every time; `--hypothesis-profile=explore` looks for new ones.
settings.register_profile("kit", deadline=None, derandomize=True, max_examples=40)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("kit")

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")

torch.set_num_threads(1)  # results that do not depend on how many tests run at once


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the pipeline, which takes longest and waits for itself if two processes share its tests, then kill, so
    that no process is left with it alone. What asks for a study besides the main job is slow.
    """
    items.sort(key=lambda item: ("smoke" not in getattr(item, "fixturenames", ()), item.path.name != "test_kill.py"))
    for item in items:
        if not {"compared", "faithful", "modelled", "filmed"}.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of a recorded file."""
    with np.load(Path(__file__).parent / "golden" / name) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real features and recorded files that only a few machines have."""
    if not (folder := os.environ.get("UWML_SHARED")):
        pytest.skip("UWML_SHARED is unset: the real features and recorded checkpoints are not here")
    return Path(folder)


@pytest.fixture(scope="session")
def browser():
    if not (program := next(filter(None, map(shutil.which, CHROMIUM)), None)):
        pytest.skip("no Chromium is installed here (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium refuses its sandbox to root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"] if root else [])
        yield browser
        browser.close()


class Offline:
    """Tabs of a browser without network: `asked` is what they wanted to load, `errors` what failed in them."""

    def __init__(self, browser) -> None:
        self.browser, self.contexts, self.asked, self.errors = browser, [], [], []

    def open(self, address: str, width: int = 1440, **options):
        """Open an address in a tab of its own; options: of Playwright's `new_context`."""
        context = self.browser.new_context(offline=True, viewport={"width": width, "height": 900}, **options)
        self.contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: self.asked.append(request.url.partition("#")[0]))
        tab.on("requestfailed", lambda request: self.errors.append(f"{address}: {request.url} failed"))
        tab.on("pageerror", lambda error: self.errors.append(f"{address}: {error}"))
        tab.on("console", lambda said: self._note(f"{address}: {said.text}", said.type))
        tab.goto(address)
        return tab

    def _note(self, text: str, kind: str) -> None:
        if kind in ("error", "warning"):
            self.errors.append(text)


@pytest.fixture
def offline(browser):
    """`Offline`; at the end nothing may have failed."""
    tabs = Offline(browser)
    yield tabs
    for context in tabs.contexts:
        context.close()
    assert tabs.errors == []


@pytest.fixture
def unmade(monkeypatch):
    """Sources in place of the pages that Sphinx makes of them: `pages/.../x.md` instead of `x.html`."""
    name = "uwml_lib.reports.site.build.run_sphinx"
    monkeypatch.setattr(name, lambda source, made, say: shutil.copytree(source, made))
