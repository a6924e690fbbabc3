"""Numbers of any size that become numbers of an ordinary size, without a rounding error."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_poison.functional.checks import check_finite

__all__ = ["IN_FLOAT32", "IN_FLOAT64", "in_units", "rescaled", "unit_of"]

IN_FLOAT64 = 200
"""Squares, cubes and sums of numbers of 2^-200 to 2^200 neither overflow nor vanish in float64."""
IN_FLOAT32 = 40
"""The same in float32."""

_LARGEST = 1000  # 2^1000 is an ordinary float64 number, and so is its product with anything up to 1


def unit_of(points: Tensor, ordinary: int = IN_FLOAT64) -> float:
    """The power of two that brings the largest coordinate near 1; 1 where it has an ordinary size already.

    Multiplying float64 numbers by it moves their exponents and keeps their digits, so whatever does not depend on the
    scale comes out the same to the last bit, and squares that would overflow or vanish no longer do. (What is 2^2000
    times smaller than the largest coordinate becomes 0.)

    Args:
        points: any shape, finite, any float dtype.
        ordinary: largest binary exponent, up or down, of what is left as it is; 0: the largest coordinate comes out in
            [1, 2) in every unit, for what compares it with a number of an absolute size.

    Example:
        >>> unit_of(torch.tensor([3.0])), unit_of(torch.tensor([2.0**-300], dtype=torch.float64)) == 2.0**300
        (1.0, True)
    """
    if not points.numel():
        return 1.0
    low, high = (float(bound) for bound in torch.aminmax(points))
    exponent = math.frexp(max(-low, high))[1] - 1
    return 1.0 if abs(exponent) <= ordinary or low == high == 0 else math.ldexp(1.0, min(-exponent, _LARGEST))


def in_units(points: Tensor, unit: float) -> Tensor:
    """``points`` times ``unit``, in float64 unless that is 1: the product may not be a float32 number.

    Example:
        >>> in_units(torch.tensor([3.0]), 0.25)
        tensor([0.7500], dtype=torch.float64)
    """
    return points if unit == 1 else points.double() * unit


def rescaled(points: Tensor) -> Tensor:
    """Each point times a power of two of its own, so that its largest coordinate lies in [1, 2).

    Args:
        points: shape (N, ...), any float dtype.

    Raises:
        UserError: a value is not finite.

    Example:
        >>> rescaled(torch.tensor([[0.0, 3.0], [0.0, 0.0], [1e-200, 0.0]], dtype=torch.float64))[:2].tolist()
        [[0.0, 1.5], [0.0, 0.0]]
    """
    rows = check_finite("inputs", points, remedy="clean them").flatten(1)
    if not rows.numel():
        return points
    exponent = torch.frexp(rows.abs().amax(1)).exponent - 1
    # In two steps, as 2^1074 is no number.
    half = exponent // 2
    for part in (half, exponent - half):
        rows = torch.ldexp(rows, -part[:, None])
    return rows.reshape(points.shape)
