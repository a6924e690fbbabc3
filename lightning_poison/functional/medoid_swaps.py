"""Exchanging medoids for points that lie nearer to everything."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["swap_medoids"]

_BLOCK = 2**24  # distances that are in memory at once
_TIE = 1e-9  # of the sum of squares about the mean: gains that differ by less are equal, smaller ones are none


def swap_medoids(points: Tensor, chosen: Tensor, swaps: int) -> Tensor:
    r"""Lower :math:`\sum_i \min_{m \in M} |x_i - x_m|^2` by exchanging a chosen point for another one, time and again.

    The best of all exchanges is made until none is left that helps: the second phase of PAM (Kaufman and Rousseeuw,
    "Partitioning around medoids", 1990). Distances to the nearest and the second nearest medoid give the gains of one
    point in every medoid's place at once (Schubert and Rousseeuw, "Faster k-medoids clustering", 2019): an exchange
    costs one look at all distances, of which a part at a time is in memory.

    Args:
        points: shape (n, d), float64.
        chosen: shape (k,), int64, distinct, with 0 < k < n.
        swaps: how many exchanges, at most.

    Returns:
        shape (k,), int64: the medoids, each in the place of the one it came for. Of equally good exchanges the first
        point's is made, in the first place.

    Example:
        >>> points = torch.tensor([0.0, 1.0, 2.0, 10.0, 11.0, 12.0], dtype=torch.float64)[:, None]
        >>> swap_medoids(points, torch.tensor([0, 1]), 9)
        tensor([4, 1])
    """
    points = points - points.mean(dim=0)  # so that rounding is small beside the spread
    squares = points.square().sum(dim=1)
    tolerance = _TIE * float(squares.sum())
    chosen = chosen.clone()
    for _ in range(swaps):
        gains = _gains(points, squares, chosen)
        best = float(gains.max())
        if best <= tolerance:
            break
        candidate, place = ((best - tolerance <= gains.T).nonzero()[0]).tolist()
        chosen[place] = candidate
    return chosen


def _gains(points: Tensor, squares: Tensor, chosen: Tensor) -> Tensor:
    """By how much the sum falls when a point takes a medoid's place: (k, n), float64."""
    count, places = len(points), len(chosen)
    to_chosen = _distances(points, squares, chosen)
    first, nearest = to_chosen.min(dim=1)
    second = first.new_full((count,), torch.inf)
    if places > 1:
        second = to_chosen.scatter(1, nearest[:, None], torch.inf).amin(dim=1)
    members = torch.nn.functional.one_hot(nearest, places).T.to(points)
    gains = points.new_empty(places, count)
    for part in torch.split(torch.arange(count), max(1, _BLOCK // count)):
        distances = _distances(points, squares, part)
        beside = (first[:, None] - distances).clamp_min_(0)  # all medoids stay
        instead = first[:, None] - torch.minimum(distances, second[:, None])  # a point's own medoid goes
        gains[:, part] = beside.sum(dim=0) + members @ (instead - beside)
    return gains


def _distances(points: Tensor, squares: Tensor, columns: Tensor) -> Tensor:
    """Squared distances of all points to some of them, (n, c)."""
    products = points @ points[columns].T
    return (squares[:, None] + squares[columns]).sub_(products, alpha=2).clamp_min_(0)
