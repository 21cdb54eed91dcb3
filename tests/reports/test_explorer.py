"""The weight explorer: one file that asks for nothing, and numbers that are the library's, in the page as on paper."""

import json
import re
from html.parser import HTMLParser
from importlib import resources
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uwml_lib.losses import LOSSES, PolynomialLoss, TripletLoss
from uwml_lib.reports.site.explorer import LIVE, PRESETS, SIMILARITIES, SLIDERS, START, build_explorer
from uwml_lib.reports.site.formulas import FORMULAS, TEMPLATES, losses_for_pages
from uwml_lib.studies import build_pages
from uwml_lib.support import paths
from uwml_lib.weighting import from_scores, one_anchor, pair_weights, weight_curve

FILES = ("shared/page.css", "shared/formulas.js", "explorer/curves.js", "explorer/explorer.js")
OWN = {name: (TEMPLATES / name).read_text(encoding="utf-8") for name in FILES}
KINDS = ("positive", "negative")
# Settings as the page has them: clamps that bite, gates of the margin, held pairs, weights on an edge.
SETTINGS = {
    **{name: changes for name, (changes, _) in PRESETS.items()},
    "on the margin": {"positive_held": 0.6, "negative_held": 0.4, "margin": 0.25, "triplet_margin": 0.5},
    "no margin": {"positive_held": 0.0, "negative_held": 0.0, "margin": 0.0, "triplet_margin": 0.0},
    "above the ceiling": {"positive_held": 1.0},
    "positive clamped": {"p0": 0.1, "p1": -0.7, "p2": 0.33, "q1": 0.25},
    "sum clamped": {"p0": -0.31, "q2": 1.5, "clamp": "sum", "positive_held": -0.2, "negative_held": 0.55},
    "constant": {"p0": 0.5, "p1": 0, "p2": 0, "q0": -1, "q1": 0, "q2": 0},
}


def live_losses(settings):
    s = START | settings
    return {
        "polynomial": PolynomialLoss(
            [s["p0"], s["p1"], s["p2"]], [s["q0"], s["q1"], s["q2"]], s["margin"], clamp=s["clamp"], reduction="sum"
        ),
        "triplet": TripletLoss(s["triplet_margin"], reduction="sum"),
    }


def expected(loss, kind, held, similarities=SIMILARITIES):
    """Loss and weight of a swept pair, one matrix at a time."""
    place, scores = ((0, 0), one_anchor(0, held)) if kind == "positive" else ((0, 1), one_anchor(held, 0))
    weights = weight_curve(loss, scores, place, torch.tensor(similarities, dtype=torch.float64))["weight"]
    losses = []
    for similarity in similarities:
        scores[place] = similarity
        losses.append(float(loss(scores)))
    return {"loss": losses, "weight": weights.tolist()}


def held(settings, kind):
    return (START | settings)["negative_held" if kind == "positive" else "positive_held"]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return build_explorer(tmp_path_factory.mktemp("a folder") / "weight_explorer.html")


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)[1])


# ------------------------------------------------------------------------------------------------------ the page itself


def test_the_page_asks_for_nothing(page):
    tags = Tags(page.read_text(encoding="utf-8")).found
    asked = [(tag, a[name]) for tag, a in tags for name in ("src", "href", "srcset", "action", "data") if name in a]
    assert asked == [("a", "index.html"), ("a", "loss_playground.html")]
    assert not [tag for tag, _ in tags if tag in ("link", "iframe", "object", "embed", "img", "base")]
    (policy,) = [a["content"] for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert not re.findall(r"\b(fetch|XMLHttpRequest|WebSocket|sendBeacon|import|url|https?:)\b", "".join(OWN.values()))


def test_the_site_holds_the_page_and_links_it(tmp_path, monkeypatch, unmade):
    monkeypatch.setattr(paths, "REPORTS", tmp_path)
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    build_pages(print)
    links = [a.get("href") for tag, a in Tags((tmp_path / "index.md").read_text(encoding="utf-8")).found if tag == "a"]
    assert "weight_explorer.html" in links
    assert (tmp_path / "weight_explorer.html").exists()


def test_every_loss_can_be_shown(page):
    shown = [a["data-show"] for tag, a in Tags(page.read_text(encoding="utf-8")).found if "data-show" in a]
    assert sorted(shown) == sorted(data_of(page)["losses"]) == sorted(LOSSES)


def test_the_same_bytes_every_time(page, tmp_path):
    assert build_explorer(tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_a_variant_is_in_the_page_by_its_name_and_a_loss_without_formula_is_not(monkeypatch, tmp_path):
    class Wide(TripletLoss, margin=0.9):
        pass

    class Own(TripletLoss):
        def direction_weights(self, scores, negative_mask):
            raise NotImplementedError

    for name, Loss in {"wide": Wide, "own": Own}.items():
        monkeypatch.setitem(LOSSES, name, Loss)
    page = build_explorer(tmp_path / "page.html")
    settings = {"margin": 0.9, "negatives": "hardest"}
    assert data_of(page)["losses"]["wide"] == {"formula": "triplet", "settings": settings, "dense": ["triplet", "all"]}
    assert 'data-show="wide"' in page.read_text(encoding="utf-8")
    assert 'data-show="own"' not in page.read_text(encoding="utf-8")


def test_presets_are_possible_settings():
    for changes, words in PRESETS.values():
        live_losses(changes)
        assert words.endswith(".")
        assert set(changes) <= set(START)
        for name in set(changes) & set(SLIDERS):
            assert SLIDERS[name].low <= changes[name] <= SLIDERS[name].high


# -------------------------------------------------------------------------- the formulas of the page, without a browser


@pytest.fixture(scope="module")
def formulas():
    from py_mini_racer import MiniRacer

    engine = MiniRacer()
    engine.eval(f"const DATA = {json.dumps({'losses': losses_for_pages()})};")
    engine.eval(OWN["shared/formulas.js"] + OWN["explorer/curves.js"])
    engine.eval("""
        const curve = (name, kind, settings, xs) => xs.map((x) => pointAt(name, kind, settings, x));
        const stretchesOf = (name, kind, settings, xs) => stretches(
            curve(name, kind, settings, xs), (x) => pointAt(name, kind, settings, x));
        const whole = (name, settings, scores) => lossOf(name, settings, scores);
        const fitted = (positives, negatives) => fromScores(positives, negatives);
    """)
    return engine.call


def curve(formulas, name, kind, settings, similarities, function="curve"):
    return formulas(function, name, kind, START | settings, similarities)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_weights_of_a_matrix_are_those_of_the_library(formulas, name):
    """Random scores, tied ones, equal ones and a single pair; at the defaults and in the form of a warm-up."""
    generator = torch.Generator().manual_seed(0)
    scores = 2 * torch.rand(5, 6, 6, dtype=torch.float64, generator=generator) - 1
    matrices = [*scores, (scores[0] * 4).round() / 4, torch.full((6, 6), 0.3, dtype=torch.float64), scores[0, :1, :1]]
    entry = losses_for_pages()[name]
    for formula, negatives in ((entry["formula"], entry["settings"].get("negatives")), entry["dense"]):
        loss = LOSSES[formula](**entry["settings"] | ({"negatives": negatives} if negatives else {}), reduction="sum")
        for matrix in matrices:
            found = formulas("whole", formula, entry["settings"] | {"negatives": negatives}, matrix.tolist())
            weights = pair_weights(loss, matrix)
            together = weights.negative + weights.positive.diag()
            assert found["loss"] == pytest.approx(float(loss(matrix)), abs=1e-10)
            np.testing.assert_allclose(found["weights"], together, rtol=1e-9, atol=1e-10)


def test_every_formula_is_one_of_the_library(formulas):
    assert sorted(formulas("eval", "Object.keys(LOSSES)")) == [*FORMULAS]


def test_coefficients_are_fitted_as_by_the_library(formulas):
    generator = np.random.default_rng(0)
    positive, negative = generator.uniform(0, 0.6, 16), generator.uniform(-0.3, 0.2, 16)
    found = formulas("fitted", positive.tolist(), negative.tolist())
    wanted = from_scores(positive, negative)
    np.testing.assert_allclose(found["positive"], wanted.positive, rtol=1e-9)
    np.testing.assert_allclose(found["negative"], wanted.negative, rtol=1e-9)
    assert formulas("fitted", [0.5, 0.5], negative.tolist()) is None


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_formulas_of_the_page_are_those_of_the_library(formulas, settings):
    similarities = [*SIMILARITIES[::4], 1.0, 1 - 1e-5, 1 - 1e-6]
    for name, loss in live_losses(settings).items():
        for kind in KINDS:
            points = curve(formulas, name, kind, settings, similarities)
            for quantity, values in expected(loss, kind, held(settings, kind), similarities).items():
                found = [point[quantity] for point in points]
                np.testing.assert_allclose(found, values, rtol=0, atol=1e-12, err_msg=f"{name} {kind} {quantity}")


coarse = st.integers(-40, 40).map(lambda step: step / 20)  # ties and edges
coefficients = st.one_of(coarse, st.floats(-2, 2))
similarity = st.one_of(coarse.filter(lambda value: abs(value) <= 1), st.floats(-1, 1))


margins = st.one_of(coarse.filter(lambda value: 0 <= value <= 1), st.floats(0, 1))


@given(st.tuples(*[coefficients] * 6), similarity, similarity, margins, st.sampled_from(["each", "sum"]))
def test_formulas_at_any_setting(formulas, numbers, positive, negative, margin, clamp):
    settings = dict(zip(("p0", "p1", "p2", "q0", "q1", "q2"), numbers, strict=True))
    settings |= {"margin": margin, "triplet_margin": margin, "clamp": clamp, "negative_held": negative}
    scores = one_anchor(positive, negative)
    for name, loss in live_losses(settings).items():
        (point,) = curve(formulas, name, "positive", settings, [positive])
        weights = pair_weights(loss, scores)
        assert point["loss"] == pytest.approx(float(loss(scores)), abs=1e-12)
        assert point["weight"] == pytest.approx(float(weights.positive[0]), abs=1e-12)


def test_dead_and_wrong_way_zones(formulas):
    def zones(kind, **settings):
        found = curve(formulas, "polynomial", kind, settings, SIMILARITIES, "stretchesOf")
        return {zone["state"]: (round(zone["from"], 6), round(zone["to"], 6)) for zone in found}

    low, high = np.sort(np.roots(PolynomialLoss().negative[::-1])).round(6)
    assert zones("negative") == {"wrong": (-1, low), "dead": (low, high)}
    assert zones("positive") == {}
    assert zones("negative", q0=0, q1=0) == {"wrong": (-1, 0)}
    assert zones("positive", negative_held=0.5) == {"out": (0.7, 0.99)}
    assert zones("negative", positive_held=0.6)["out"] == (-1, 0.4)


# --------------------------------------------------------------------------------------------------- in a real browser


@pytest.fixture
def visit(offline, page):
    """Open the page with the network off; at the end nothing else may have been asked for."""

    def open_page(fragment="", width=1440, **options):
        tab = offline.open(page.as_uri() + fragment, width, **options)
        tab.wait_for_function("window.explorer?.settled().then(() => true)")
        return tab

    yield open_page
    assert set(offline.asked) <= {page.as_uri()}


def drawn(tab, name, kind, quantity):
    """The similarities and values of a curve as the chart has them."""
    rows = tab.evaluate(
        "([kind, quantity]) => explorer.settled().then(() => explorer.drawn(kind, quantity))", [kind, quantity]
    )
    rows = [row for row in rows if row["name"] == name]
    return [row["similarity"] for row in rows], [row[quantity] for row in rows]


def assert_drawn(tab, settings, every=5):
    for name, loss in live_losses(settings).items():
        for kind in KINDS:
            for quantity, values in expected(loss, kind, held(settings, kind), SIMILARITIES[::every]).items():
                similarities, found = drawn(tab, name, kind, quantity)
                assert similarities == SIMILARITIES
                np.testing.assert_allclose(
                    found[::every], values, rtol=0, atol=1e-6, err_msg=f"{name} {kind} {quantity}"
                )


@pytest.mark.slow
def test_a_slider_moved_by_keys_moves_the_curve(visit):
    tab = visit()
    assert_drawn(tab, {})
    tab.focus("#q1")
    for _ in range(5):
        tab.keyboard.press("ArrowRight")
    assert_drawn(tab, {"q1": -0.35}, every=1)
    tab.select_option("#clamp", "sum")
    assert_drawn(tab, {"q1": -0.35, "clamp": "sum"})
    assert tab.url.endswith("#q1=-0.35&clamp=sum")


@pytest.mark.slow
def test_every_setting_typed_in_and_restored_from_the_address(visit):
    tab = visit()
    for settings in SETTINGS.values():
        tab.click("[data-preset=released]")
        for name, value in settings.items():
            if name == "clamp":
                tab.select_option("#clamp", value)
            else:
                tab.fill(f"input[type=number][data-setting={name}]", str(value))
        assert_drawn(tab, settings)
        other = visit("#" + tab.url.partition("#")[2])
        assert other.evaluate("explorer.settings()") == tab.evaluate("explorer.settings()")
        for name, kind, quantity in product(LIVE, KINDS, ("loss", "weight")):
            assert drawn(other, name, kind, quantity) == drawn(tab, name, kind, quantity)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fragment",
    ["#nonsense", "#q1=abc&margin=-4&clamp=none&show=bogus", "#q1=1e999&p0=&%%%=%E0", "#__proto__=1&ceiling=0"],
)
def test_a_malformed_address_is_ignored(visit, fragment):
    tab = visit(fragment)
    assert tab.evaluate("explorer.settings()") == START
    assert_drawn(tab, {})


@pytest.mark.slow
def test_presets_losses_tooltip_and_tables(visit):
    tab = visit()
    for name, (changes, words) in PRESETS.items():
        tab.click(f"[data-preset='{name}']")
        assert_drawn(tab, changes)
        assert tab.inner_text("#preset") == words
        assert tab.get_attribute(f"[data-preset='{name}']", "aria-pressed") == "true"
    tab.click("[data-preset=released]")
    assert "dead zone, weight 0, for n from 0.0955 to 0.3489" in tab.inner_text("#negative-zones")

    for name in LOSSES:
        tab.set_checked(f"[data-show={name}]", True)
    for name in set(LOSSES) - set(LIVE):
        for kind in KINDS:
            values = expected(LOSSES[name](reduction="sum"), kind, held({}, kind))
            np.testing.assert_allclose(drawn(tab, name, kind, "weight")[1], values["weight"], rtol=0, atol=1e-6)
    tab.select_option("#scale", "relative")
    for name in LOSSES:
        assert max(map(abs, drawn(tab, name, "negative", "loss")[1])) in (0, 1)
    tab.set_checked("[data-show=triplet]", False)
    assert drawn(tab, "triplet", "positive", "weight")[1] == []

    tab.hover("#negative-weight", position={"x": 300, "y": 80})
    at = float(re.search(r"n = (\S+),", tab.inner_text("#tooltip"))[1].replace("−", "-"))
    weight = float(re.search(r"polynomial: (\S+)", tab.inner_text("#tooltip"))[1].replace("−", "-"))
    assert [weight] == pytest.approx(expected(live_losses({})["polynomial"], "negative", -1, [at])["weight"], abs=1e-6)
    tab.click("#negative-weight", position={"x": 300, "y": 80})
    assert tab.evaluate("explorer.settings().at") == at

    tab.click("summary")
    row = tab.locator("#positive-numbers tbody tr").first
    row.wait_for()  # the table is made when it is opened
    cells = row.locator("th, td").all_inner_texts()
    assert [float(text.replace("−", "-")) for text in cells[:2]] == [-1.0, pytest.approx(1.1)]
    assert tab.locator("#positive-numbers tbody tr").count() == len(SIMILARITIES) / 5


@pytest.mark.slow
@pytest.mark.parametrize("width", [375, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible_and_no_wider_than_the_screen(visit, scheme, width):
    tab = visit("#show=" + ",".join(LOSSES), width, color_scheme=scheme)
    tab.click("summary")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.evaluate((resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = tab.evaluate("tags => axe.run(document, {runOnly: {type: 'tag', values: tags}})", tags)
    assert len(found["passes"]) > 20
    assert [(rule["id"], rule["impact"], rule["nodes"][0]["html"]) for rule in found["violations"]] == []


@pytest.mark.slow
def test_dark_mode_while_the_page_is_open(visit):
    tab = visit(color_scheme="light")
    before = tab.evaluate("getComputedStyle(document.querySelector('svg[data-loss]')).color")
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_function(
        "before => getComputedStyle(document.querySelector('svg[data-loss]')).color !== before", arg=before
    )
    assert_drawn(tab, {})
