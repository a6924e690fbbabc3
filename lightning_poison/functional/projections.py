"""Euclidean projections onto norm balls, sample by sample."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["onto_l1_ball", "onto_l2_ball", "onto_linf_ball"]


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


def onto_l1_ball(vectors: Tensor, radius: float) -> Tensor:
    """Solve, for each sample v, ``min ||u - v||_2`` subject to ``||u||_1 <= radius``.

    A sample outside the ball is shrunk: ``u_i = sign(v_i) max(|v_i| - l, 0)`` with the l > 0 that brings ``||u||_1``
    to the radius. With ``|v|`` sorted downwards and its partial sums S_k, it is ``l = (S_k - radius) / k`` for the
    last k at which the k-th largest exceeds that (Duchi et al., "Efficient projections onto the l1-ball for learning in
    high dimensions", 2008, fig. 1).

    Args:
        vectors: shape (N, ...), float.
        radius: of the ball around 0.

    Returns:
        shape (N, ...).

    Example:
        >>> onto_l1_ball(torch.tensor([[3.0, -2.0, 0.5], [0.3, 0.4, 0.0]]), 2.0)
        tensor([[ 1.5000, -0.5000,  0.0000],
                [ 0.3000,  0.4000,  0.0000]])
    """
    if not vectors.numel():
        return vectors.clone()
    flat = vectors.flatten(1)
    lengths = flat.abs()
    largest = lengths.sort(dim=1, descending=True).values
    ranks = torch.arange(1, flat.shape[1] + 1, device=flat.device, dtype=flat.dtype)
    thresholds = (largest.cumsum(dim=1) - radius) / ranks
    last = (largest > thresholds).sum(dim=1, keepdim=True).clamp_min(1) - 1
    threshold = thresholds.gather(1, last).clamp_min(0)
    return (flat.sign() * (lengths - threshold).clamp_min(0)).view_as(vectors)
