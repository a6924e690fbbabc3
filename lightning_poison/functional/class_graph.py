"""Class graphs, which join points of a class that lie close together: colourings and dominating sets; and buckets.

Buckets divide points by a length or another order, as those of a class by their adversarial paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer
from lightning_poison.functional.close_pairs import close_pairs

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = [
    "ClassGraph",
    "class_graph",
    "distance_two_colouring",
    "dominating_set",
    "is_distance_two_colouring",
    "neighbour_counts",
    "order_ranks",
    "quantile_buckets",
    "width_buckets",
]

_MAX_EDGES = 2**26


@dataclass(frozen=True, eq=False)
class ClassGraph:
    r"""An undirected graph without loops, as its sparse adjacency matrix.

    The class graph :math:`G_\gamma^p(S)` of a set of points has an edge between i and j where
    :math:`\|x_i - x_j\|_p \le \gamma` (Definition 1, section 6.1 of the thesis this package grew from).

    Args:
        matrix: shape (n, n), symmetric: row i holds True at the neighbours of i, which rise.
    """

    matrix: csr_matrix

    @classmethod
    def from_pairs(cls, count: int, pairs: Iterable[tuple[Tensor, Tensor]]) -> ClassGraph:
        """The graph with the given edges.

        Args:
            count: number of points n.
            pairs: blocks of edges, i and j of shape (m,), integer, i != j; each edge stands there once.

        Raises:
            UserError: there are too many for the memory.

        Example:
            >>> graph = ClassGraph.from_pairs(3, [(torch.tensor([0, 1]), torch.tensor([2, 2]))])
            >>> graph.of(2), graph.degrees
            (tensor([0, 1], dtype=torch.int32), tensor([1, 1, 2]))
        """
        from scipy.sparse import csr_matrix

        firsts, seconds, edges = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], 0
        for first, second in pairs:
            edges += len(first)
            if edges > _MAX_EDGES:
                raise UserError(
                    f"a class graph must have at most {_MAX_EDGES:,} edges, got more for {count} points; lower gamma "
                    "or quantile, or take ClassGraphDegree, which keeps no edges"
                )
            firsts.append(first.numpy().astype(np.int32, copy=False))
            seconds.append(second.numpy().astype(np.int32, copy=False))
        ends = np.concatenate(firsts), np.concatenate(seconds)
        half = csr_matrix((np.ones(edges, dtype=bool), ends), shape=(count, count))
        whole = (half + half.T).tocsr()
        whole.sort_indices()
        return cls(whole)

    @property
    def num_points(self) -> int:
        """Number of points, n."""
        return int(self.matrix.shape[0])

    @property
    def num_edges(self) -> int:
        """Number of edges, E."""
        return int(self.matrix.nnz) // 2

    @property
    def degrees(self) -> Tensor:
        """How many neighbours each point has: shape (n,), int64."""
        return torch.from_numpy(np.diff(self.matrix.indptr).astype(np.int64))

    def of(self, point: int) -> Tensor:
        """The neighbours of a point, rising: shape (degree,), int32."""
        return torch.from_numpy(self.matrix.indices[self.matrix.indptr[point] : self.matrix.indptr[point + 1]])

    def edges(self) -> tuple[Tensor, Tensor]:
        """Every edge in both directions: from and to, shape (2 E,), int64, rising in the first, then the second."""
        starts = torch.repeat_interleave(torch.arange(self.num_points), self.degrees)
        return starts, torch.from_numpy(self.matrix.indices.astype(np.int64))


def class_graph(
    points: Tensor, gamma: float, p: float = 2.0, advance: Callable[[int], object] = lambda _: None
) -> ClassGraph:
    """Join all points within ``gamma`` of each other; memory grows with the edges, not with n x n.

    Args:
        points: shape (n, ...), float.
        gamma: the distance, at least 0; pairs at this very distance are joined.
        p: exponent of the norm, at least 1; ``inf``: the largest difference.
        advance: called with the number of points that are done.

    Raises:
        UserError: an argument is out of range, the points are not finite, or there are too many edges.

    Example:
        >>> class_graph(torch.tensor([[0.0], [1.0], [3.0]]), gamma=1.5).degrees
        tensor([1, 1, 0])
    """
    return ClassGraph.from_pairs(len(points), close_pairs(points, gamma, p, advance))


def neighbour_counts(
    points: Tensor, gamma: float, p: float = 2.0, advance: Callable[[int], object] = lambda _: None
) -> Tensor:
    """The degrees of :func:`class_graph`, whose edges are not kept: memory grows with n.

    Returns:
        shape (n,), int64.

    Example:
        >>> neighbour_counts(torch.tensor([[0.0], [1.0], [3.0]]), gamma=1.5)
        tensor([1, 1, 0])
    """
    counts = torch.zeros(len(points), dtype=torch.int64)
    for first, second in close_pairs(points, gamma, p, advance):
        for ends in (first, second):
            counts += torch.bincount(ends, minlength=len(points))
    return counts


# --- colouring --------------------------------------------------------------------------------------------------------


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


# --- dominating set ---------------------------------------------------------------------------------------------------


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


# --- buckets ----------------------------------------------------------------------------------------------------------


def order_ranks(*keys: Tensor) -> Tensor:
    """The place of each point when they are sorted by the first key, ties by the second, ..., at last by position.

    Args:
        keys: each of shape (m,); no NaN.

    Returns:
        shape (m,), int64: 0 for the smallest, m - 1 for the largest.

    Example:
        >>> order_ranks(torch.tensor([3, 1, 3, 1]), torch.tensor([0.5, 0.9, 0.1, 0.9]))
        tensor([3, 0, 2, 1])
    """
    order = torch.from_numpy(np.lexsort([key.numpy() for key in reversed(keys)]))
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    return ranks


def quantile_buckets(ranks: Tensor, num_buckets: int) -> Tensor:
    """Buckets of equal size: bucket k holds the places from m k / B up to m (k + 1) / B, rounded up.

    Args:
        ranks: shape (m,), int64: a permutation of 0, ..., m - 1.
        num_buckets: B; with m < B some buckets are empty.

    Returns:
        shape (m,), int64, in [0, B - 1]; sizes differ by at most one.

    Example:
        >>> quantile_buckets(torch.tensor([4, 0, 1, 3, 2]), 2)
        tensor([1, 0, 0, 1, 0])
    """
    return ranks * num_buckets // max(len(ranks), 1)


def width_buckets(lengths: Tensor, reached: Tensor, num_buckets: int) -> Tensor:
    """Buckets of equal width between the shortest and the longest path that ended; the others go into the last one.

    Lengths are whole numbers, so that of the lengths a, ..., z bucket k holds those with
    k <= B (length - a) / (z - a + 1) < k + 1.

    Args:
        lengths: shape (m,), int64.
        reached: shape (m,), bool: which paths ended; at least one.
        num_buckets: B; with fewer lengths than B some buckets are empty.

    Returns:
        shape (m,), int64, in [0, B - 1].

    Example:
        >>> lengths, reached = torch.tensor([10, 14, 19, 10, 200]), torch.tensor([True, True, True, True, False])
        >>> width_buckets(lengths, reached, 2)
        tensor([0, 0, 1, 0, 1])
    """
    low, high = int(lengths[reached].min()), int(lengths[reached].max())
    buckets = (lengths - low) * num_buckets // (high - low + 1)
    return torch.where(reached, buckets, num_buckets - 1)
