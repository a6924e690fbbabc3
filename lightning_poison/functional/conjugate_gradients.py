"""Linear systems whose matrix is known by its products only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Solution", "conjugate_gradients"]


@dataclass(frozen=True, eq=False)
class Solution:
    """What the iteration found.

    Args:
        value: x, like the right-hand side.
        residual: ||b - A x|| / ||b||, as the iteration updates it.
        steps: number of products.
    """

    value: Tensor
    residual: float
    steps: int


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    right: Tensor,
    *,
    precondition: Callable[[Tensor], Tensor] | None = None,
    tolerance: float = 1e-8,
    max_steps: int = 1000,
    advance: Callable[[int], object] = lambda _: None,
) -> Solution:
    """Solve A x = b for a symmetric positive definite A by preconditioned conjugate gradients.

    Source: Nocedal and Wright, "Numerical Optimization", 2nd edition, 2006, algorithm 5.3. It stops at a direction
    along which A is not positive, with what it has.

    Args:
        product: maps x to A x; both like b.
        right: b, any shape, float64.
        precondition: maps r to about A^-1 r, symmetric and positive as well; None: r itself.
        tolerance: of the relative residual.
        max_steps: of products.
        advance: called with 1 after each.

    Example:
        >>> conjugate_gradients(lambda x: torch.tensor([2.0, 4.0]).double() * x, torch.ones(2).double()).value
        tensor([0.5000, 0.2500], dtype=torch.float64)
    """
    value, residual = torch.zeros_like(right), right.clone()
    scale, steps = float(right.norm()), 0
    guess = precondition(residual) if precondition else residual
    direction, angle = guess.clone(), float((residual * guess).sum())
    while steps < max_steps and float(residual.norm()) > tolerance * scale:
        image = product(direction)
        steps += 1
        advance(1)
        curvature = float((direction * image).sum())
        if not curvature > 0:
            break
        value += angle / curvature * direction
        residual -= angle / curvature * image
        guess = precondition(residual) if precondition else residual
        previous, angle = angle, float((residual * guess).sum())
        direction = guess + angle / previous * direction
    return Solution(value, float(residual.norm()) / scale if scale else 0.0, steps)
