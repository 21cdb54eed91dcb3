"""The linear baseline: correlations by other routes, and recall where images and captions have something in common."""

import json
import runpy
import sys

import numpy as np
import pytest
from scipy import linalg, sparse
from sklearn.cross_decomposition import CCA

from tests.tiny import write_tiny
from uwml_lib.config import preset
from uwml_lib.evaluation import retrieval_metrics
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.paths import CHECKOUT


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(CHECKOUT / "benchmarks" / "linear_cca.py"))


@pytest.fixture(scope="module")
def views():
    """Two noisy linear views (400, 6) and (400, 5) of the same four numbers; not centred, of different scale."""
    generator = np.random.default_rng(0)
    common = generator.normal(size=(400, 4))
    x = common @ generator.normal(size=(4, 6)) + 0.3 * generator.normal(size=(400, 6)) + 3
    y = 7 * (common @ generator.normal(size=(4, 5)) + 0.3 * generator.normal(size=(400, 5)))
    return x, y


def test_correlations_of_scikit_learn(script, views):
    x, y = views
    model = script["LinearCCA"](x, sparse.csr_array(y), shrinkage=0)
    ours = [
        np.corrcoef(x @ a, y @ b)[0, 1] for a, b in zip(model.projections[0].T, model.projections[1].T, strict=True)
    ]
    assert model.correlations == pytest.approx(ours)
    theirs = CCA(n_components=4, max_iter=20_000, tol=1e-12).fit_transform(x, y)
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(theirs[0].T, theirs[1].T, strict=True)]
    assert model.correlations[:4] == pytest.approx(expected, abs=1e-4)


def test_correlations_of_the_generalised_eigenproblem(script, views):
    x, y = views
    model = script["LinearCCA"](x, sparse.csr_array(y), shrinkage=0.1)
    covariance = np.cov(x, y, rowvar=False, bias=True)
    a, b, c = covariance[:6, :6], covariance[6:, 6:], covariance[:6, 6:]
    a, b = (z + 0.1 * z.diagonal().mean() * np.eye(len(z)) for z in (a, b))
    squares = linalg.eigh(c @ linalg.inv(b) @ c.T, a, eigvals_only=True)[::-1]
    assert model.correlations == pytest.approx(np.sqrt(squares[:5]))


def test_what_has_a_common_part_is_found(script, views):
    x, y = views
    shuffled = np.random.default_rng(1).permutation(y[:300])
    rsum = []
    for pairs in (y[:300], shuffled):
        scores = script["LinearCCA"](x[:300], sparse.csr_array(pairs), 0.01).scores(x[300:], y[300:], 4, 1)
        rsum.append(retrieval_metrics(scores, captions_per_image=1)["rsum"])
    assert rsum[0] > 400
    assert rsum[1] < 100  # of 100 images; chance is 32


def test_from_a_folder_to_a_line(script, tmp_path, monkeypatch, capsys):
    write_tiny(tmp_path / "tiny", {"train": 80, "dev": 20})
    sizes = {"HELD_OUT": 20, "GRID": {"shrinkage": (0.1, 1.0), "dimension": (2, 8), "power": (1.0,)}}
    for function in ("choose", "measure"):
        for name, value in sizes.items():
            monkeypatch.setitem(script[function].__globals__, name, value)
    output = tmp_path / "cca.json"
    monkeypatch.setattr(
        sys, "argv", ["cca", "--dataset", "tiny", "--data-root", str(tmp_path), "--output", str(output)]
    )
    script["main"]()
    result = json.loads(output.read_text())
    assert result["metrics"]["rsum"] > 300  # chance is 110
    assert result["chosen"]["dimension"] == 8
    assert result["images"] == {"train": 80, "held_out": 20, "dev": 20}
    test = write_tiny(tmp_path / "tested/tiny", {"train": 80, "dev": 20, "test": 30})
    found = script["measure"](preset("tiny", data_root=str(test.parent)))
    assert (found["split"], found["images"]) == ("test", {"train": 80, "held_out": 20, "test": 30})
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("| linear CCA (tiny, dev) | ")
    assert line.endswith(f" | {result['metrics']['rsum']:.1f} |")


def test_too_few_images(script, tmp_path):
    write_tiny(tmp_path / "tiny")
    with pytest.raises(UWMLError, match="tiny: found 40 training images, expected at least 1000"):
        script["measure"](preset("tiny", data_root=str(tmp_path)))
