"""Perturbations that keep to a budget."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["spend", "within"]

_ROUNDS = 50


def spend(gain: Tensor, size: Tensor, total: float) -> Tensor:
    """Which share of each perturbation to make so that their sizes add up to at most ``total``.

    Solves max sum_i s_i g_i over 0 <= s_i <= 1 with sum_i s_i z_i <= S: the fractional knapsack, whose solution takes
    the items of largest g_i / z_i whole and the first that does not fit in part (Dantzig, 1957). Equal ratios are taken
    in the order of the items; an item that gains nothing is left out.

    Args:
        gain: shape (n,), float: g, what each whole perturbation is worth.
        size: shape (n,), float, positive: z.
        total: S.

    Returns:
        shape (n,), float64: s.

    Example:
        >>> spend(torch.tensor([1.0, 3.0, -1.0]), torch.tensor([1.0, 1.0, 1.0]), total=1.5)
        tensor([0.5000, 1.0000, 0.0000], dtype=torch.float64)
    """
    gain, size = gain.double(), size.double()
    order = (gain / size).argsort(descending=True, stable=True)
    order = order[gain[order] > 0]
    before = size[order].cumsum(0) - size[order]
    shares = torch.zeros_like(gain)
    shares[order] = ((total - before) / size[order]).clamp(0, 1)
    return shares


def within(inputs: Tensor, perturbation: Tensor, bound: Tensor, size: Callable[[Tensor], Tensor]) -> Tensor:
    """``inputs + perturbation`` such that the sum as it is stored differs from the inputs by at most ``bound``.

    Storing the sum rounds it, which may lengthen a perturbation; a perturbation that is too long is shortened.

    Args:
        inputs: shape (n, ...), float32.
        perturbation: shape (n, ...).
        bound: shape (n,): the largest size of each.
        size: (n, ...) float64 to (n,): a norm.

    Returns:
        shape (n, ...), float32.

    Example:
        >>> moved = within(torch.ones(1, 2), torch.tensor([[3.0, 4.0]]), torch.tensor([1.0]), lambda d: d.norm(dim=1))
        >>> bool((moved.double() - 1).norm() <= 1), moved
        (True, tensor([[1.6000, 1.8000]]))
    """
    shape = (-1,) + (1,) * (inputs.ndim - 1)
    exact, bound = perturbation.double(), bound.double()
    for attempt in range(_ROUNDS):
        moved = (inputs.double() + exact).float()
        actual = size(moved.double() - inputs.double())
        too_long = actual > bound
        if not too_long.any():
            return moved
        shrunk = bound / actual.clamp_min(1e-300) * (1 - 1e-7 * 2**attempt)
        exact = exact * torch.where(too_long, shrunk.clamp_min(0), 1.0).reshape(shape)
    return torch.where(too_long.reshape(shape), inputs, moved)
