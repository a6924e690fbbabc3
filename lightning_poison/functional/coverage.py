"""Choosing points so that everything has one of them that serves it well: facility location, and medoids."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["cover", "swap_medoids"]

_TIE = 1e-6  # of what is served: gains that differ by less are equal, smaller ones are none
_SWAP_TIE = 1e-9  # of the sum of squares about the mean: gains that differ by less are equal, smaller ones are none
_BLOCK = 2**24  # distances between points that are in memory at once


# --- facility location ------------------------------------------------------------------------------------------------


def cover(
    service: Tensor,
    group: Tensor,
    budgets: list[int],
    *,
    rounds: int = 5,
    advance: Callable[[int], object] = lambda _: None,
) -> Tensor:
    r"""Maximise :math:`\sum_J \max_{i \in S} s_{Ji}` over sets S with a given number of candidates of each group.

    Greedy choice, at least half of the maximum under such budgets and :math:`1 - 1/e` of it with a single group
    (Fisher, Nemhauser and Wolsey, 1978), then exchanges: each chosen candidate gives way to the one of its group that
    serves best in its place, until none does.

    Args:
        service: shape (m, c), float32, not negative: how well candidate i serves customer J.
        group: shape (c,), int64, in [0, groups).
        budgets: how many of each group; at most its size.
        rounds: of exchanges, at most.
        advance: called with 1 after each greedy choice.

    Returns:
        shape (sum of budgets,), int64: distinct candidates, in the order of choice; of equally good ones the first.

    Example:
        >>> service, group = torch.tensor([[3.0, 2.0, 0.0], [0.0, 2.0, 3.0]]), torch.tensor([0, 0, 0])
        >>> cover(service, group, [1]), cover(service, group, [2])
        (tensor([1]), tensor([2, 0]))
    """
    left = torch.tensor(budgets, dtype=torch.int64)
    free = torch.ones(len(group), dtype=torch.bool)
    served = service.new_zeros(len(service))
    chosen: list[int] = []
    while int(left.sum()):
        pick = _best(service, served, free & (left[group] > 0))
        chosen.append(pick)
        free[pick] = False
        left[group[pick]] -= 1
        served = torch.maximum(served, service[:, pick])
        advance(1)
    for _ in range(rounds):
        if not _exchange(service, group, chosen, free):
            break
    return torch.tensor(chosen, dtype=torch.int64)


def _exchange(service: Tensor, group: Tensor, chosen: list[int], free: Tensor) -> bool:
    """Let each chosen candidate give way to a better one; whether any did."""
    changed = False
    for place, old in enumerate(chosen):
        others = service[:, [other for other in chosen if other != old]]
        served = others.amax(dim=1) if others.shape[1] else service.new_zeros(len(service))
        free[old] = True
        new = _best(service, served, free & (group == group[old]))
        gain = _total(service, served, new) - _total(service, served, old)
        if gain > _TIE * (1e-300 + _total(service, served, old)):
            chosen[place], changed = new, True
        free[chosen[place]] = False
    return changed


def _best(service: Tensor, served: Tensor, allowed: Tensor) -> int:
    """The allowed candidate that serves best beside what is served already; of equals the first."""
    columns = allowed.nonzero()[:, 0]
    totals = torch.maximum(service[:, columns], served[:, None]).sum(dim=0, dtype=torch.float64)
    good = totals >= totals.max() - _TIE * (1e-300 + float(totals.max()))
    return int(columns[good.nonzero()[0, 0]])


def _total(service: Tensor, served: Tensor, candidate: int) -> float:
    return float(torch.maximum(service[:, candidate], served).sum(dtype=torch.float64))


# --- medoids ----------------------------------------------------------------------------------------------------------


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
    tolerance = _SWAP_TIE * float(squares.sum())
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
