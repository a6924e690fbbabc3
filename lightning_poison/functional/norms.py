"""What an attack has to know of a norm: the size of a perturbation, the steepest step, the ball."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.functional.checks import check_choice
from lightning_poison.functional.projections import onto_l2_ball, onto_linf_ball

__all__ = ["NORMS", "Norm", "l2_ascent", "l2_size", "linf_ascent", "linf_size", "named_norm"]


def linf_size(vectors: Tensor) -> Tensor:
    """Largest absolute coordinate of each sample.

    Args:
        vectors: shape (N, ...), float.

    Returns:
        shape (N,).

    Example:
        >>> linf_size(torch.tensor([[3.0, -4.0]]))
        tensor([4.])
    """
    sizes: Tensor = torch.linalg.vector_norm(vectors.flatten(1), ord=torch.inf, dim=1)
    return sizes


def linf_ascent(gradients: Tensor) -> Tensor:
    """Solve, for each sample g, ``max <g, d>`` subject to ``||d||_inf <= 1``.

    The solution is ``sign(g)`` and the maximum is ``||g||_1``, the dual norm.

    Args:
        gradients: shape (N, ...), float.

    Returns:
        shape (N, ...).

    Example:
        >>> linf_ascent(torch.tensor([[0.5, -2.0, 0.0]]))
        tensor([[ 1., -1.,  0.]])
    """
    return gradients.sign()


def l2_size(vectors: Tensor) -> Tensor:
    """Euclidean length of each sample.

    Args:
        vectors: shape (N, ...), float.

    Returns:
        shape (N,).

    Example:
        >>> l2_size(torch.tensor([[3.0, -4.0]]))
        tensor([5.])
    """
    sizes: Tensor = torch.linalg.vector_norm(vectors.flatten(1), dim=1)
    return sizes


def l2_ascent(gradients: Tensor) -> Tensor:
    """Solve, for each sample g, ``max <g, d>`` subject to ``||d||_2 <= 1``.

    The solution is ``g / ||g||_2``, and 0 where g is 0. Gradients are scaled by their largest coordinate first: the
    squares of tiny ones would vanish.

    Args:
        gradients: shape (N, ...), float.

    Returns:
        shape (N, ...).

    Example:
        >>> l2_ascent(torch.tensor([[3.0, -4.0], [3e-30, 4e-30]]))
        tensor([[ 0.6000, -0.8000],
                [ 0.6000,  0.8000]])
    """
    flat = gradients.flatten(1)
    tiny = torch.finfo(gradients.dtype).tiny
    flat = flat / flat.abs().amax(dim=1, keepdim=True).clamp_min(tiny)
    lengths: Tensor = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    return (flat / lengths.clamp_min(tiny)).view_as(gradients)


@dataclass(frozen=True)
class Norm:
    """A norm, as attacks use it; to add one, write its three functions and enter it in ``NORMS``.

    It must be absolute: depend on the coordinates' absolute values only, and grow with them.

    Attributes:
        name: as users write it.
        size: the norm of each sample, (N, ...) to (N,).
        ascent: of all directions of norm at most 1, the one along which a gradient promises most.
        onto_ball: Euclidean projection onto the ball of a radius around 0.
    """

    name: str
    size: Callable[[Tensor], Tensor]
    ascent: Callable[[Tensor], Tensor]
    onto_ball: Callable[[Tensor, float], Tensor]

    def into_ball_and_box(self, examples: Tensor, inputs: Tensor, eps: float) -> Tensor:
        """Bring ``examples`` into the ball of radius ``eps`` around ``inputs`` and the box [0, 1].

        First the ball, then the box. The second step doesn't leave the ball: an input's coordinate c lies in [0, 1],
        so ``|clip(v) - c| = |clip(v) - clip(c)| <= |v - c|``, and an absolute norm doesn't grow when no coordinate
        does. For l_inf the result is the Euclidean projection onto the intersection (both sets are boxes); for l2
        it is a point of the intersection, not always the nearest.

        Args:
            examples: shape (N, ...), float.
            inputs: shape (N, ...), in [0, 1].
            eps: radius in pixel units.

        Returns:
            shape (N, ...).
        """
        return (inputs + self.onto_ball(examples - inputs, eps)).clamp(0, 1)

    def tolerance(self, inputs: Tensor, eps: float) -> float:
        """By how much rounding may push an example out of the ball.

        Every coordinate of ``input + perturbation`` is rounded to the dtype's spacing at 1, u, and so is the factor
        of the projection: twice ``u * (||1|| + eps)`` covers both.
        """
        ones = torch.ones((1, inputs[0].numel()), dtype=torch.float64)
        return 2 * torch.finfo(inputs.dtype).eps * (float(self.size(ones)) + eps)

    def is_inside(self, examples: Tensor, inputs: Tensor, eps: float) -> Tensor:
        """Whether each example lies in the box [0, 1] exactly and in the ball up to :meth:`tolerance`.

        Returns:
            shape (N,), bool; False for a NaN.
        """
        if not len(inputs):
            return torch.ones(0, dtype=torch.bool, device=inputs.device)
        in_box = ((examples >= 0) & (examples <= 1)).flatten(1).all(dim=1)
        half = inputs.dtype in (torch.float16, torch.bfloat16)
        perturbations = examples.float() - inputs.float() if half else examples - inputs
        return in_box & (self.size(perturbations) <= eps + self.tolerance(inputs, eps))


NORMS = {
    norm.name: norm
    for norm in (
        Norm("linf", linf_size, linf_ascent, onto_linf_ball),
        Norm("l2", l2_size, l2_ascent, onto_l2_ball),
    )
}


def named_norm(name: str) -> Norm:
    """The norm called ``name``.

    Raises:
        UserError: there is none.

    Example:
        >>> named_norm("l2").name
        'l2'
    """
    return NORMS[check_choice("norm", name, NORMS)]
