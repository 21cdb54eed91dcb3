"""Polynomials with coefficients in ascending powers."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real

import torch
from torch import Tensor


def polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """Evaluate a polynomial (Horner's rule); same shape and dtype as x."""
    *rest, leading = coefficients
    value = torch.full_like(x, leading)
    for coefficient in reversed(rest):
        value = value * x + coefficient
    return value


def derivative(coefficients: Sequence[float]) -> tuple[float, ...]:
    """Return the derivative's coefficients."""
    return tuple(power * coefficient for power, coefficient in enumerate(coefficients))[1:] or (0.0,)


def check_coefficients(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """Return the coefficients as floats; raise ValueError unless there is one and all are finite."""
    listed = isinstance(values, Iterable) and not isinstance(values, str | Mapping)
    coefficients = tuple(values) if listed else ()
    if not coefficients or not all(map(is_real, coefficients)):
        raise ValueError(f"{name}: found {values!r}, expected finite coefficients in ascending powers, at least one")
    return tuple(map(float, coefficients))


def is_real(value: object) -> bool:
    """Say whether a value is a number that a float can hold; True is none."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # type: ignore[operator]  # typeshed compares no Real with a float
