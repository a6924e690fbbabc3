"""How the points on which a set of flips is judged are attacked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.attacks.engine import walk

__all__ = ["OuterAttack", "input_box"]


@dataclass(frozen=True)
class OuterAttack:
    """Signed-gradient steps in an l_inf ball (Madry et al., 2018).

    Args:
        eps: radius of the ball.
        steps: how many; each 2.5 eps / steps long.
        low: smallest value of an input.
        high: largest value.
    """

    eps: float
    steps: int
    low: float
    high: float

    def descend(
        self, inputs: Tensor, value: Callable[[Tensor, Tensor], Tensor], chunk_size: int | None = None
    ) -> Tensor:
        """Inputs moved to where a value is low.

        Args:
            inputs: shape (N, ...).
            value: maps inputs, (n, ...), and which of the N they are, (n,), to one number each, (n,).
            chunk_size: how many are moved at once; None: all.

        Returns:
            shape (N, ...): of each the iterate with the lowest value; the start is one of them.

        Example:
            >>> attack = OuterAttack(eps=0.1, steps=5, low=0.0, high=1.0)
            >>> attack.descend(torch.tensor([[0.5, 0.05, 1.0]]), lambda x, rows: x @ torch.tensor([1.0, 2.0, -3.0]))
            tensor([[0.4000, 0.0000, 1.0000]])
        """
        best, lowest = inputs.clone(), inputs.new_full((len(inputs),), torch.inf)

        def look(points: Tensor, rows: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
            points = points.detach().requires_grad_(with_gradient)
            with torch.enable_grad():
                values = value(points, rows)
                slopes = torch.autograd.grad(values.sum(), points) if with_gradient else ()
            better = values.detach() < lowest[rows]
            lowest[rows[better]], best[rows[better]] = values.detach()[better], points.detach()[better]
            return torch.zeros_like(better), -slopes[0] if slopes else None

        def move(points: Tensor, gradients: Tensor, rows: Tensor) -> Tensor:
            moved = points + 2.5 * self.eps / self.steps * gradients.sign()
            moved = torch.minimum(torch.maximum(moved, inputs[rows] - self.eps), inputs[rows] + self.eps)
            return moved.clamp(self.low, self.high)

        size = chunk_size or max(len(inputs), 1)
        walk(inputs, look, move, max_steps=self.steps, chunk_size=size, keep_ends=False)
        return best


def input_box(inputs: Tensor) -> tuple[float, float]:
    """The range in which attacked inputs stay: [0, 1] where all inputs do, as pixels; else none.

    Example:
        >>> input_box(torch.tensor([0.0, 0.5])), input_box(torch.tensor([0.0, 2.0]))
        ((0.0, 1.0), (-inf, inf))
    """
    inside = bool((inputs >= 0).all() and (inputs <= 1).all())
    return (0.0, 1.0) if inside else (-torch.inf, torch.inf)
