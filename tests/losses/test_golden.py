"""The losses of the released code: value and gradient on recorded score matrices."""

import numpy as np
import pytest
import torch

from tests.conftest import golden
from uwml_lib.losses import PolynomialLoss, TripletLoss

RECORDED = golden("losses.npz")
MATRICES = [name.removesuffix(".scores") for name in RECORDED if name.endswith(".scores")]
MARGINS = (0.0, 0.2, 0.5)
RELEASED = {
    "polynomial": lambda margin: PolynomialLoss(margin=margin),
    "triplet_sum": lambda margin: TripletLoss(margin, negatives="all"),
    "triplet_max": lambda margin: TripletLoss(margin),
}


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", RELEASED)
@pytest.mark.parametrize("margin", MARGINS)
def test_value_and_gradient(matrix, name, margin):
    scores = torch.tensor(RECORDED[f"{matrix}.scores"], requires_grad=True)
    loss = RELEASED[name](margin)(scores)
    loss.backward()
    case = f"{matrix}.{name}.margin{margin}"
    np.testing.assert_allclose(loss.item(), RECORDED[f"{case}.loss"], rtol=2e-6)
    np.testing.assert_allclose(scores.grad, RECORDED[f"{case}.grad"], atol=1e-6, rtol=1e-5)


def test_every_recorded_case_is_compared():
    cases = {f"{matrix}.{name}.margin{margin}" for matrix in MATRICES for name in RELEASED for margin in MARGINS}
    assert {name.rpartition(".")[0] for name in RECORDED} == cases | set(MATRICES)
