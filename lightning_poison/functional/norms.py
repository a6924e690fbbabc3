"""What an attack has to know of a norm: the size of a perturbation, the steepest step, the ball."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.functional.box_projections import (
    onto_l1_ball_and_box,
    onto_l2_ball_and_box,
    onto_linf_ball_and_box,
)
from lightning_poison.functional.box_steps import l1_step_in_box
from lightning_poison.functional.checks import check_choice

__all__ = [
    "NORMS",
    "Norm",
    "l1_ascent",
    "l1_on_sphere",
    "l1_size",
    "l2_ascent",
    "l2_size",
    "linf_ascent",
    "linf_size",
    "named_norm",
]


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

    Squares are added up in single precision at least, and by :func:`torch.sum`, as in :func:`l1_size`.

    Args:
        vectors: shape (N, ...), float.

    Returns:
        shape (N,).

    Example:
        >>> l2_size(torch.tensor([[3.0, -4.0]]))
        tensor([5.])
    """
    return _wide(vectors.flatten(1)).square().sum(dim=1).sqrt().to(vectors.dtype)


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
    return (flat / l2_size(flat)[:, None].clamp_min(tiny)).view_as(gradients)


def l1_size(vectors: Tensor) -> Tensor:
    """Sum of the absolute coordinates of each sample.

    :func:`torch.sum` adds up sums of pairs. ``torch.linalg.vector_norm`` adds one coordinate after another, and its
    result for 150,000 of one size is off by a thousandth.

    Args:
        vectors: shape (N, ...), float.

    Returns:
        shape (N,).

    Example:
        >>> l1_size(torch.tensor([[3.0, -4.0]]))
        tensor([7.])
    """
    return vectors.flatten(1).abs().sum(dim=1)


def l1_ascent(gradients: Tensor) -> Tensor:
    """Solve, for each sample g, ``max <g, d>`` subject to ``||d||_1 <= 1``.

    All weight goes to a coordinate of largest ``|g_i|``, with its sign: the maximum is ``||g||_inf``, the dual norm. Of
    equal ones the first is taken; the solution is 0 where g is 0.

    Args:
        gradients: shape (N, ...), float.

    Returns:
        shape (N, ...).

    Example:
        >>> l1_ascent(torch.tensor([[0.5, -2.0, 2.0]]))
        tensor([[ 0., -1.,  0.]])
    """
    flat = gradients.flatten(1)
    places = flat.abs().argmax(dim=1, keepdim=True)
    return torch.zeros_like(flat).scatter_(1, places, flat.gather(1, places).sign()).view_as(gradients)


def l1_on_sphere(noise: Tensor) -> Tensor:
    """Turn noise that is uniform on [-1, 1) into points that are uniform on the sphere ``||u||_1 = 1``.

    ``-log(1 - |noise|)`` is exponentially distributed, exponential variables over their sum are uniform on the simplex,
    and the noise's signs choose the sphere's facet (Devroye, "Non-uniform random variate generation", 1986, sect. V.2).

    Args:
        noise: shape (N, ...), float, in [-1, 1).

    Returns:
        shape (N, ...).

    Example:
        >>> l1_size(l1_on_sphere(torch.tensor([[0.5, -0.1, 0.9]])))
        tensor([1.])
    """
    flat = noise.flatten(1)
    tiny = torch.finfo(noise.dtype).tiny
    exponential = -torch.log1p(-flat.abs().clamp_max(1 - torch.finfo(noise.dtype).eps))
    return (flat.sign() * exponential / exponential.sum(dim=1, keepdim=True).clamp_min(tiny)).view_as(noise)


def _as_it_is(noise: Tensor) -> Tensor:
    return noise


def _wide(batch: Tensor) -> Tensor:
    return batch.float() if batch.dtype in (torch.float16, torch.bfloat16) else batch


@dataclass(frozen=True)
class Norm:
    """A norm, as attacks use it; to add one, write its functions and enter it in ``NORMS``.

    Attributes:
        name: as users write it.
        size: the norm of each sample, (N, ...) to (N,).
        ascent: of all directions of norm at most 1, the one along which a gradient promises most.
        onto_ball_and_box: ``onto_ball_and_box(points, centres, eps)``: Euclidean projection onto the intersection of
            the ball of radius ``eps`` around each centre with the box [0, 1].
        random_direction: makes noise that is uniform on [-1, 1), (N, ...), a random point of the ball of radius 1:
            uniform in it for l_inf, on its sphere for l2 and l1.
        box_step: ``box_step(points, gradients, length)``: a steepest step that the box doesn't cut short; None: steps
            take no heed of the box.
    """

    name: str
    size: Callable[[Tensor], Tensor]
    ascent: Callable[[Tensor], Tensor]
    onto_ball_and_box: Callable[[Tensor, Tensor, float], Tensor]
    random_direction: Callable[[Tensor], Tensor]
    box_step: Callable[[Tensor, Tensor, float], Tensor] | None = None

    def step(self, points: Tensor, gradients: Tensor, length: float) -> Tensor:
        """Take a steepest step of ``length``, to be followed by :attr:`onto_ball_and_box`.

        For l_inf and l2 it is ``x + length * ascent(g)``, and may lead out of the box. For l_inf nothing is lost by
        that: clipped to the box it solves ``max <g, d>`` subject to ``||d||_inf <= length`` and x + d in [0, 1]. For
        l2 a share of the length is lost; for l1 all of it could be, so the step solves that problem (:attr:`box_step`).

        Args:
            points: shape (N, ...), float.
            gradients: shape (N, ...), float.
            length: in the norm, in pixel units.

        Returns:
            shape (N, ...).
        """
        if self.box_step is not None:
            return self.box_step(points, gradients, length)
        return torch.add(points, self.ascent(gradients), alpha=length)

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
        return in_box & (self.size(_wide(examples) - _wide(inputs)) <= eps + self.tolerance(inputs, eps))


NORMS = {
    norm.name: norm
    for norm in (
        Norm("linf", linf_size, linf_ascent, onto_linf_ball_and_box, _as_it_is),
        Norm("l2", l2_size, l2_ascent, onto_l2_ball_and_box, l2_ascent),
        Norm("l1", l1_size, l1_ascent, onto_l1_ball_and_box, l1_on_sphere, l1_step_in_box),
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
