"""Euclidean projections onto norm balls, sample by sample."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["onto_l2_ball", "onto_linf_ball"]


def onto_linf_ball(vectors: Tensor, radius: float) -> Tensor:
    """Solve, for each sample v, ``min ||u - v||_2`` subject to ``||u||_inf <= radius``.

    The problem separates into coordinates, so the solution clips each of them.

    Args:
        vectors: shape (N, ...), float.
        radius: of the ball around 0.

    Returns:
        shape (N, ...).

    Example:
        >>> onto_linf_ball(torch.tensor([[0.3, -0.1]]), 0.2)
        tensor([[ 0.2000, -0.1000]])
    """
    return vectors.clamp(-radius, radius)


def onto_l2_ball(vectors: Tensor, radius: float) -> Tensor:
    """Solve, for each sample v, ``min ||u - v||_2`` subject to ``||u||_2 <= radius``.

    A sample outside the ball is shortened to the radius: ``v * radius / ||v||_2``.

    Args:
        vectors: shape (N, ...), float.
        radius: of the ball around 0.

    Returns:
        shape (N, ...).

    Example:
        >>> onto_l2_ball(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 1.0)
        tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]])
    """
    lengths: Tensor = torch.linalg.vector_norm(vectors.flatten(1), dim=1)
    tiny = torch.finfo(vectors.dtype).tiny
    factors: Tensor = (radius / lengths.clamp_min(tiny)).clamp_max(1)
    return (vectors.flatten(1) * factors[:, None]).view_as(vectors)
