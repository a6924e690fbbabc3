"""Colours for points such that nobody within two steps of a point shares its colour."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_poison.functional.class_graph import ClassGraph

__all__ = ["distance_two_colouring", "is_distance_two_colouring"]


def distance_two_colouring(graph: ClassGraph) -> Tensor:
    r"""Give neighbours, and neighbours of neighbours, different colours.

    Points take turns by falling degree (of equal ones the first comes first), and each gets the lowest colour that no
    point within two steps has. That takes at least :math:`\Delta + 1` colours, as a point and its neighbours all
    differ, and at most :math:`\Delta^2 + 1`, :math:`\Delta` being the largest degree. The fewest possible are NP-hard
    to find (McCormick, 1983); an approximate solution will do (section 6.2 of the thesis this package grew from).

    Args:
        graph: n points.

    Returns:
        shape (n,), int64: colours 0, 1, ..., none left out.

    Example:
        >>> path = ClassGraph.from_pairs(4, [(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 3]))])
        >>> distance_two_colouring(path)
        tensor([2, 0, 1, 2])
    """
    starts, neighbours = graph.matrix.indptr.tolist(), graph.matrix.indices.tolist()
    colours = [0] * graph.num_points
    seen = [0] * graph.num_points  # bit c: the point or a neighbour of it has colour c
    for point in torch.argsort(graph.degrees, descending=True, stable=True).tolist():
        ball = [point, *neighbours[starts[point] : starts[point + 1]]]
        taken = 0
        for other in ball:
            taken |= seen[other]
        lowest = ~taken & (taken + 1)
        colours[point] = lowest.bit_length() - 1
        for other in ball:
            seen[other] |= lowest
    return torch.tensor(colours, dtype=torch.int64)


def is_distance_two_colouring(graph: ClassGraph, colours: Tensor) -> bool:
    """Whether all points within two steps of each other differ in colour.

    Two points are within two steps exactly where some point has both among itself and its neighbours; so each such ball
    must show no colour twice.

    Args:
        graph: n points.
        colours: shape (n,), int64, not negative.

    Example:
        >>> path = ClassGraph.from_pairs(3, [(torch.tensor([0, 1]), torch.tensor([1, 2]))])
        >>> is_distance_two_colouring(path, torch.tensor([0, 1, 0]))
        False
    """
    if not graph.num_points:
        return True
    points = torch.arange(graph.num_points)
    centres, others = graph.edges()
    shown = torch.cat([centres, points]) * (int(colours.max()) + 1) + colours[torch.cat([others, points])]
    return len(torch.unique(shown)) == len(shown)
