"""A small set of points such that every point is in it or has a neighbour in it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lightning_poison.functional.checks import check_integer
from lightning_poison.functional.class_graph import ClassGraph

__all__ = ["dominating_set"]


def dominating_set(graph: ClassGraph, budget: int | None = None) -> Tensor:
    r"""Choose, again and again, the point that dominates most points which nothing dominates yet.

    A point dominates itself and its neighbours. Greedy choice gives a dominating set of at most
    :math:`(\ln \Delta + 2)` times the smallest size, :math:`\Delta` being the largest degree, and the first b choices
    dominate at least :math:`1 - 1/e` of what the best b points do (Nemhauser, Wolsey and Fisher, 1978, as coverage is
    submodular).

    This is Algorithm 4 of the thesis this package grew from (section 6.1), with U the points that nothing dominates yet
    and D those that are dominated and were not chosen. As printed, line 7 takes the neighbourhood N[v] out of U before
    line 8 puts :math:`U \cap N[v]`, by then empty, into D: D would stay empty, and a dominated point could never be
    chosen, for which the bound above does not hold. What is meant is line 8 before line 7; then :math:`D \cup U` is
    every point that was not chosen, and those that were dominate nothing new.

    Of equally good points the first is taken. A point's neighbours are walked once, when it becomes dominated, so the
    whole costs the number of edges plus n for each choice.

    Args:
        graph: n points.
        budget: how many points at most; None: until all are dominated.

    Returns:
        shape (m,), int64: the chosen points in the order of choice; they are fewer than the budget where all points are
        dominated before.

    Example:
        >>> path = ClassGraph.from_pairs(5, [(torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 3, 4]))])
        >>> dominating_set(path)
        tensor([1, 3])
    """
    budget = graph.num_points if budget is None else check_integer("budget", budget, minimum=0)
    gains = graph.degrees.numpy() + 1  # |U n N[x]|
    undominated = np.ones(graph.num_points, dtype=bool)
    chosen: list[int] = []
    while len(chosen) < budget and bool(undominated.any()):
        best = int(gains.argmax())  # NumPy promises the first
        chosen.append(best)
        ball = np.append(graph.of(best).numpy(), best)
        new = ball[undominated[ball]]
        undominated[new] = False
        gains[new] -= 1
        gains -= np.bincount(graph.matrix[new].indices, minlength=graph.num_points)
    return torch.tensor(chosen, dtype=torch.int64)
