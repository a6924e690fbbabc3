"""The attacked points on which a set of flips is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

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

    def descend(self, inputs: Tensor, value: Callable[[Tensor], Tensor]) -> Tensor:
        """Inputs moved to where a value is low.

        Args:
            inputs: shape (N, ...).
            value: maps inputs to one number each, (N,).

        Returns:
            shape (N, ...): of each the iterate with the lowest value; the start is one of them.

        Example:
            >>> attack = OuterAttack(eps=0.1, steps=5, low=0.0, high=1.0)
            >>> attack.descend(torch.tensor([[0.5, 0.05, 1.0]]), lambda x: x @ torch.tensor([1.0, 2.0, -3.0]))
            tensor([[0.4000, 0.0000, 1.0000]])
        """
        moved, best = inputs, inputs
        lowest = inputs.new_full((len(inputs),), torch.inf)
        for _ in range(self.steps + 1):
            moved = moved.detach().requires_grad_()
            with torch.enable_grad():
                values = value(moved)
                (slope,) = torch.autograd.grad(values.sum(), moved)
            moved, better = moved.detach(), values.detach() < lowest
            best = torch.where(better.view(-1, *[1] * (inputs.ndim - 1)), moved, best)
            lowest = torch.where(better, values.detach(), lowest)
            moved = moved - 2.5 * self.eps / self.steps * slope.sign()
            moved = torch.minimum(torch.maximum(moved, inputs - self.eps), inputs + self.eps)
            moved = moved.clamp(self.low, self.high)
        return best


def input_box(inputs: Tensor) -> tuple[float, float]:
    """The range in which attacked inputs stay: [0, 1] where all inputs do, as pixels; else none.

    Example:
        >>> input_box(torch.tensor([0.0, 0.5])), input_box(torch.tensor([0.0, 2.0]))
        ((0.0, 1.0), (-inf, inf))
    """
    inside = bool((inputs >= 0).all() and (inputs <= 1).all())
    return (0.0, 1.0) if inside else (-torch.inf, torch.inf)
