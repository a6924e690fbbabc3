"""Gradients from scores alone: central differences along chosen directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from lightning_poison.functional.random_streams import generator

__all__ = ["Directions", "coordinate_directions", "estimate_gradients", "random_directions"]

Directions = Callable[[int], Tensor]
"""The next k directions, shape (n or 1, k, D), of entries -1, 0 and 1."""


def coordinate_directions(points: Tensor) -> Directions:
    """The unit vectors e_1, ..., e_D in turn, the same for all points.

    Args:
        points: shape (n, ...), of D coordinates each.

    Example:
        >>> following = coordinate_directions(torch.rand(5, 3))
        >>> following(2)
        tensor([[[1., 0., 0.],
                 [0., 1., 0.]]])
        >>> following(1)
        tensor([[[0., 0., 1.]]])
    """
    size = points.shape[1:].numel()
    first = 0

    def following(count: int) -> Tensor:
        nonlocal first
        block = points.new_zeros(1, count, size)
        block[0, torch.arange(count), torch.arange(first, first + count)] = 1
        first += count
        return block

    return following


def random_directions(points: Tensor, seed: int, keys: Iterable[Sequence[int]]) -> Directions:
    """Independent random signs, from a stream of each point's own.

    Args:
        points: shape (n, ...), of D coordinates each.
        seed: the attack's seed.
        keys: for each point what tells its stream from others, such as the sample's position and the step.

    Example:
        >>> points = torch.rand(2, 3)
        >>> both = random_directions(points, 0, [(7, 0), (8, 0)])(4)
        >>> both[1].equal(random_directions(points[1:], 0, [(8, 0)])(4)[0]), both.unique()
        (True, tensor([-1.,  1.]))
    """
    size = points.shape[1:].numel()
    streams = [generator(seed, "directions", *key) for key in keys]

    def following(count: int) -> Tensor:
        # Integers are drawn one after another, so a stream doesn't depend on how many are asked for at once.
        signs = torch.stack([torch.empty(count, size).random_(0, 2, generator=stream) for stream in streams])
        return (2 * signs - 1).to(points)

    return following


def estimate_gradients(
    objective: Callable[[Tensor, Tensor], Tensor],
    points: Tensor,
    directions: Directions,
    *,
    count: int,
    sigma: float,
    at_once: int,
) -> Tensor:
    """Sum over directions u of ``(f(x + sigma u) - f(x - sigma u)) / s``, times u, for each point x.

    Both ends of a difference are clipped to the box [0, 1], so only images are asked for, and coordinate i is divided
    by the distance s_i between the two ends. Along unit vectors that is the gradient of a linear f exactly. Along
    random signs it is ``count`` times an unbiased estimate of it: ``E[u_i u_j] = 0`` for i != j leaves ``s_i g_i`` of
    ``u_i sum_j s_j g_j u_j``, and a single direction's variance is ``sum over j != i of (s_j g_j / s_i)^2``.

    Args:
        objective: maps points, shape (m, ...), and the rows that they belong to, shape (m,), to values, shape (m,).
        points: shape (n, ...), float, in [0, 1].
        directions: gives the next k of them.
        count: how many directions; each costs two values.
        sigma: distance to an end of the difference, in pixel units.
        at_once: how many values to ask for at once, where 2 n are fewer.

    Returns:
        shape (n, ...).

    Example:
        >>> points = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
        >>> unit_vectors = coordinate_directions(points)
        >>> estimate_gradients(lambda x, _: 3 * x[:, 0] - x[:, 1], points, unit_vectors, count=2, sigma=0.1, at_once=64)
        tensor([[ 3.0000, -1.0000]], dtype=torch.float64)
    """
    flat = points.flatten(1)
    spans = (flat + sigma).clamp(0, 1) - (flat - sigma).clamp(0, 1)
    total = torch.zeros_like(flat)
    block_size = max(1, at_once // (2 * max(1, len(flat))))
    for first in range(0, count, block_size):
        block = directions(min(block_size, count - first))
        shift = sigma * block
        ends = torch.stack((flat[:, None] + shift, flat[:, None] - shift)).clamp(0, 1)
        rows = torch.arange(len(flat), device=flat.device).repeat_interleave(ends.shape[2]).repeat(2)
        upper, lower = objective(ends.reshape(-1, *points.shape[1:]), rows).view(ends.shape[:3])
        total += ((upper - lower)[:, :, None] * block).sum(dim=1)
    # In half precision a short span may round to 0: nothing is seen along that coordinate.
    return (total / spans).nan_to_num(posinf=0, neginf=0).view_as(points)
