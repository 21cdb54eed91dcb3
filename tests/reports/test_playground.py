"""The loss playground: its steps are those of gradient descent on the library's losses, and everybody can use it."""

import json
import re
from importlib import resources

import numpy as np
import pytest
import torch

from uwml_lib.losses import LOSSES, PolynomialLoss
from uwml_lib.reports.site.formulas import TEMPLATES
from uwml_lib.reports.site.playground import PAIRS, PARAMETERS, PRESETS, RATES, STARTS, build_playground
from uwml_lib.weighting import from_scores, pair_weights


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return build_playground(tmp_path_factory.mktemp("a folder") / "loss_playground.html")


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)[1])


def test_the_page_asks_for_nothing(page):
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r'(?:src|href)="([^"]*)"', text)) == {"index.html", "weight_explorer.html"}
    assert "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'" in text
    own = "".join(file.read_text(encoding="utf-8") for file in (TEMPLATES / "playground").iterdir())
    assert not re.findall(r"\b(fetch|XMLHttpRequest|WebSocket|sendBeacon|import|url|https?:)\b", own)


def test_every_loss_and_every_parameter_is_offered(page):
    text, data = page.read_text(encoding="utf-8"), data_of(page)
    assert sorted(data["losses"]) == sorted(LOSSES)
    for name, entry in data["losses"].items():
        assert f"<option>{name}</option>" in text
        assert entry["formula"] in RATES
        assert entry["settings"].keys() <= PARAMETERS.keys() | {"positive_ceiling"}
    for changes, words in PRESETS.values():
        assert words.endswith(".")
        assert changes["loss"] in LOSSES and changes.get("start", "random") in STARTS


# ----------------------------------------------------------------------------- the steps of the page, without a browser


def scores_of(images, captions):
    return 1 - (images[:, None] - captions).square().sum(dim=2) / 2


def descend(start, loss, dense, rate, warmup, steps):
    """Gradient descent on the points by automatic differentiation: (scores, loss, weights, points) before each step."""
    images, captions = (torch.tensor(start[name], dtype=torch.float64) for name in ("images", "captions"))
    for step in range(steps + 1):
        images, captions = images.detach().requires_grad_(), captions.detach().requires_grad_()
        scores = scores_of(images, captions)
        now = dense if step < warmup else loss
        value = now(scores)
        weights = pair_weights(now, scores)
        yield scores, value, weights.negative + weights.positive.diag(), torch.stack([images, captions])
        moves = torch.autograd.grad(value, (images, captions), materialize_grads=True)
        images, captions = images - rate * moves[0], captions - rate * moves[1]


def assert_descends(state, step, loss, rate, warmup):
    """Three steps of the page are those of gradient descent."""
    for scores, value, weights, points in descend(state(), loss, loss.dense(), rate, warmup, steps=3):
        found = state()
        assert found["losses"][-1] == pytest.approx(value.item(), abs=1e-6)
        for name, wanted in (("scores", scores), ("weights", weights)):
            np.testing.assert_allclose(found[name], wanted.detach(), rtol=0, atol=1e-6, err_msg=name)
        np.testing.assert_allclose([found["images"], found["captions"]], points.detach(), rtol=0, atol=1e-6)
        step()


@pytest.mark.parametrize("name", LOSSES)
def test_steps_are_those_of_the_library(page, name):
    from py_mini_racer import MiniRacer

    engine = MiniRacer()
    engine.eval(f"const DATA = {json.dumps(data_of(page))};")
    for script in ("shared/formulas.js", "playground/points.js"):
        engine.eval((TEMPLATES / script).read_text(encoding="utf-8"))
    engine.eval(
        "const state = () => world, move = () => step(), begin = (texts) => { accept(texts); reset(); return true; };"
    )
    for start in STARTS:
        engine.call("begin", {"loss": name, "start": start, "warmup": 2})
        rate = RATES[data_of(page)["losses"][name]["formula"]]
        assert_descends(
            lambda: engine.call("state"), lambda: engine.call("move"), LOSSES[name](reduction="mean"), rate, warmup=2
        )


# --------------------------------------------------------------------------------------------------- in a real browser


@pytest.fixture
def visit(offline, page):
    """Open the page with the network off; at the end nothing else may have been asked for."""
    yield lambda fragment="", width=1440, **options: offline.open(page.as_uri() + fragment, width, **options)
    assert set(offline.asked) == {page.as_uri()}


def state(tab):
    return tab.evaluate("playground.state()")


@pytest.mark.slow
def test_steps_in_the_browser_are_those_of_the_library(visit):
    tab = visit("#warmup=2")
    for name, Loss in LOSSES.items():
        tab.select_option("[data-setting=loss]", name)
        tab.click("#reset")
        rate = tab.evaluate("playground.settings().rate")
        assert_descends(lambda: state(tab), lambda: tab.click("#step"), Loss(reduction="mean"), rate, warmup=2)


@pytest.mark.slow
def test_settings_are_typed_in_shared_and_refused_if_impossible(visit):
    tab = visit()
    tab.select_option("[data-setting=loss]", "polynomial")
    tab.select_option("[data-setting=start]", "low")
    for name, text in {"rate": "0.2", "positive": "0.4, -0.5, 0.1", "negative": "1 1.5 0.5", "warmup": "1"}.items():
        tab.fill(f"[data-setting={name}]", text)
        tab.press(f"[data-setting={name}]", "Enter")
    tab.select_option("[data-setting=clamp]", "sum")
    loss = PolynomialLoss((0.4, -0.5, 0.1), (1, 1.5, 0.5), clamp="sum")
    other = visit("#" + tab.url.partition("#")[2])
    assert other.evaluate("playground.settings()") == tab.evaluate("playground.settings()")
    assert_descends(lambda: state(tab), lambda: tab.click("#step"), loss, 0.2, warmup=1)
    before = tab.evaluate("playground.settings()")
    for name, text in {"negative": "1, two", "positive": "", "warmup": "1.5", "rate": "-1", "margin": ""}.items():
        tab.fill(f"[data-setting={name}]", text)
        tab.press(f"[data-setting={name}]", "Enter")
        assert tab.get_attribute(f"[data-setting={name}]", "aria-invalid") == "true"
    assert tab.evaluate("playground.settings()") == before


@pytest.mark.slow
@pytest.mark.parametrize("fragment", ["#nonsense", "#loss=bogus&rate=abc&margin=-4", "#%%%=%E0&__proto__=1&seed=0.5"])
def test_a_malformed_address_is_ignored(visit, fragment):
    assert visit(fragment).evaluate("playground.settings()") == visit().evaluate("playground.settings()")


@pytest.mark.slow
def test_presets_show_what_they_say(visit):
    tab = visit()
    assert tab.get_attribute("[data-preset='A loss at work']", "aria-pressed") == "true"

    def after(preset, steps):
        tab.click(f"[data-preset='{preset}']")
        assert tab.inner_text("#preset") == PRESETS[preset][1]
        tab.evaluate(f"playground.step({steps})")
        found = state(tab)
        found["wrong"] = sum(weight < 0 for row in found["weights"] for weight in row)
        found["first"] = sum(p > n for p, n in zip(found["positives"], found["hardest"], strict=True))
        found["push"] = sum(w for i, row in enumerate(found["weights"]) for j, w in enumerate(row) if i != j)
        return found | {"rivals": np.mean(found["hardest"]), "loss": found["losses"][-1]}

    assert after("A loss at work", 100)["first"] == PAIRS
    assert after("Collapse", 100)["loss"] == pytest.approx(0.4, abs=0.01)
    warmed = after("Warm-up", 100)
    assert warmed["loss"] < 0.1 and warmed["first"] == PAIRS
    dead = after("Dead zone", 0)
    rising = after("Dead zone", 100)
    assert dead["push"] < 0.02 < rising["push"] and rising["rivals"] == pytest.approx(0.5, abs=0.02)
    low, lured = after("The wrong way", 0), after("The wrong way", 30)
    assert low["wrong"] > PAIRS and low["rivals"] < -0.4 and lured["rivals"] > 0.3
    for steps in (0, 1, 10, 50):
        mended = after("New coefficients", steps)
        assert mended["wrong"] == 0 and mended["rivals"] <= low["rivals"]
    changes = PRESETS["New coefficients"][0]
    fitted = from_scores(low["positives"], low["hardest"])
    for name in ("positive", "negative"):
        np.testing.assert_allclose(getattr(fitted, name), changes[name], rtol=0, atol=6e-5)
    tab.click("[data-preset='The wrong way']")
    tab.click("#fit")
    assert tab.get_attribute("[data-preset='New coefficients']", "aria-pressed") == "true"


@pytest.mark.slow
def test_played_by_keys(visit):
    for options in ({}, {"reduced_motion": "reduce"}):
        tab = visit(**options)
        tab.focus("#plane")
        tab.keyboard.press("ArrowRight")
        assert state(tab)["step"] == 1
        assert "Step 1, warm-up: loss" in tab.inner_text("#status")
        tab.keyboard.press("Space")
        assert tab.inner_text("#play") == "Pause" and tab.get_attribute("#status", "aria-live") == "off"
        tab.locator("#status", has_text=re.compile("^Step 1[1-9]")).wait_for()
        tab.keyboard.press("Space")
        assert tab.inner_text("#play") == "Play" and tab.get_attribute("#status", "aria-live") == "polite"
        stopped = state(tab)["step"]
        assert stopped == 11 if options else stopped > 10
        tab.click("#reset")
        assert state(tab)["step"] == 0


@pytest.mark.slow
def test_points_that_fly_apart_are_said_and_stopped(visit):
    tab = visit("#loss=infonce&rate=1000")
    tab.evaluate("playground.step(50)")
    assert "take a smaller learning rate" in tab.inner_text("#status")
    assert np.isfinite(state(tab)["images"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("width", [375, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible_and_no_wider_than_the_screen(visit, scheme, width):
    tab = visit("#loss=polynomial&start=collapsed", width, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.evaluate((resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = tab.evaluate("tags => axe.run(document, {runOnly: {type: 'tag', values: tags}})", tags)
    assert len(found["passes"]) > 20
    assert [(rule["id"], rule["impact"], rule["nodes"][0]["html"]) for rule in found["violations"]] == []
