"""The graph that joins points of a class which lie close together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.close_pairs import close_pairs

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["ClassGraph", "class_graph", "neighbour_counts"]

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
