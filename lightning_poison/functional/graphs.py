"""Neighbourhood graphs of points, and their spectral embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer
from lightning_poison.functional.random_streams import generator
from lightning_poison.functional.scale import IN_FLOAT32, in_units, unit_of

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["SpectralEmbedding", "nearest_neighbours", "neighbour_weights", "spectral_embedding"]

_SHARPNESS = 2.0
_TOLERANCE = 1e-6
_SMALL = 500  # points, up to which a dense solver is as fast
_GAP = 1e-12


def nearest_neighbours(points: Tensor, count: int, queries: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The nearest points by Euclidean distance, exactly.

    Args:
        points: shape (n, d), float.
        count: number of neighbours k, at most n (n - 1 without ``queries``).
        queries: shape (m, d), float; None: the points themselves, of which none is its own neighbour.

    Returns:
        distances, shape (m, k), float64, rising along a row; index, shape (m, k), int64.

    Raises:
        UserError: there are fewer points than neighbours asked for, or coordinates are not finite.

    Example:
        >>> nearest_neighbours(torch.tensor([[0.0], [1.0], [3.0]]), 1)[1].flatten().tolist()
        [1, 0, 1]
    """
    from sklearn.neighbors import NearestNeighbors

    count = check_integer("neighbours", count, minimum=1)
    available = len(points) - (queries is None)
    if count > available:
        raise UserError(f"neighbours must be at most the {available} other points, got {count}; lower neighbours")
    for name, rows in (("points", points), ("queries", queries)):
        if rows is not None:
            check_finite(name, rows, remedy="clean the inputs or change the feature map")
    if queries is not None and not len(queries):
        return torch.empty(0, count, dtype=torch.float64), torch.empty(0, count, dtype=torch.int64)
    unit = unit_of(points, ordinary=IN_FLOAT32)
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(_in_float32("points", points, unit))
    distances, index = search.kneighbors(None if queries is None else _in_float32("queries", queries, unit))
    return torch.from_numpy(distances.astype(np.float64) / unit), torch.from_numpy(index.astype(np.int64))


def _in_float32(name: str, rows: Tensor, unit: float) -> np.ndarray:
    """Rows times ``unit``, where distances fit into float32."""
    scaled = in_units(rows, unit).float()
    return check_finite(name, scaled, remedy="they are too large beside the points; clean the inputs").numpy()


def neighbour_weights(distances: Tensor) -> Tensor:
    r"""Weights :math:`\exp(-2 (d / d_k)^2)` of neighbours at the given distances, d_k being the farthest's.

    The scale belongs to each point (Zelnik-Manor and Perona, 2004), so that sparse and dense regions are joined alike.
    Where all neighbours lie on the point itself they weigh 1.

    Args:
        distances: shape (m, k), float, rising along a row.

    Returns:
        shape (m, k), float64, in (0, 1].

    Example:
        >>> neighbour_weights(torch.tensor([[0.0, 0.0], [0.0, 3.0]])).round(decimals=3)
        tensor([[1.0000, 1.0000],
                [1.0000, 0.1350]], dtype=torch.float64)
    """
    farthest = distances[:, -1:].double()
    relative = torch.where(farthest > 0, distances.double() / farthest, 0.0)
    return torch.exp(-_SHARPNESS * relative.square())


@dataclass(frozen=True)
class SpectralEmbedding:
    r"""Points in the coordinates in which a random walk on their neighbourhood graph is slowest.

    Args:
        coordinates: shape (n, dim), float64: right eigenvectors :math:`\phi` of the walk :math:`D^{-1} W`, of unit
            length in the degrees' measure.
        eigenvalues: shape (dim,), float64, falling; the first is 1.
    """

    coordinates: Tensor
    eigenvalues: Tensor

    def extended(self, weights: Tensor, index: Tensor) -> Tensor:
        r"""Coordinates of new points: :math:`\phi(x) = \lambda^{-1} \sum_j w_j \phi_j / \sum_j w_j` (Nystroem).

        Args:
            weights: shape (m, k), float64: of the new points' neighbours.
            index: shape (m, k), int64: which of the embedded points those are.

        Returns:
            shape (m, dim), float64.
        """
        shares = weights / weights.sum(dim=1, keepdim=True)
        averages = torch.einsum("mk,mkd->md", shares, self.coordinates[index])
        return averages / torch.where(self.eigenvalues.abs() > _GAP, self.eigenvalues, 1.0)


def spectral_embedding(points: Tensor, dim: int, neighbours: int = 10, seed: int = 0) -> SpectralEmbedding:
    r"""Embed points by the leading eigenvectors of their neighbourhood graph.

    The graph joins each point to its nearest ones with :func:`neighbour_weights`, averaged over both directions. With
    W its weights and D its degrees, the eigenvectors v of :math:`D^{-1/2} W D^{-1/2}` of largest eigenvalue are found
    (Ng, Jordan and Weiss, 2002), and :math:`\phi = D^{-1/2} v` are the coordinates (Shi and Malik, 2000). The points of
    components of the graph beyond the ``dim`` largest have all coordinates zero.

    Args:
        points: shape (n, d), float.
        dim: number of coordinates, at most n.
        neighbours: number of nearest points that each is joined to; at most n - 1 are used.
        seed: of the vector that the iteration starts from.

    Raises:
        UserError: there are fewer than two points or fewer than ``dim``, or they are not finite.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [2.0], [100.0], [101.0], [102.0]])
        >>> signs = spectral_embedding(points, dim=2, neighbours=2).coordinates.sign()
        >>> bool((signs[:3] == signs[0]).all() and (signs[3:] == signs[3]).all() and (signs[0] != signs[3]).any())
        True
    """
    dim = check_integer("dim", dim, minimum=1)
    if len(points) < max(dim, 2):
        raise UserError(f"dim must be at most the number of points, got {dim} for {len(points)}; lower clusters")
    graph = _symmetric_graph(points, min(neighbours, len(points) - 1))
    scale = 1 / np.sqrt(np.asarray(graph.sum(axis=1))[:, 0])
    graph.data *= scale[_rows_of(graph)] * scale[graph.indices]
    values, vectors = _leading_eigenvectors(graph, dim, seed)
    return SpectralEmbedding(torch.from_numpy(vectors * scale[:, None]), torch.from_numpy(values))


def _symmetric_graph(points: Tensor, neighbours: int) -> csr_matrix:
    from scipy.sparse import csr_matrix

    distances, index = nearest_neighbours(points, neighbours)
    starts = np.arange(0, index.numel() + 1, neighbours)
    weights = neighbour_weights(distances).flatten().numpy()
    graph = csr_matrix((weights, index.flatten().numpy(), starts), shape=(len(points), len(points)))
    return ((graph + graph.T) / 2).tocsr()


def _rows_of(graph: csr_matrix) -> np.ndarray:
    return np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))


def _leading_eigenvectors(matrix: csr_matrix, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``dim`` largest eigenvalues, falling, and their vectors.

    Each connected component has the eigenvalue 1 once. Krylov iterations miss repeated eigenvalues, so components are
    solved one by one; among equal values those of larger components come first.
    """
    from scipy.sparse.csgraph import connected_components

    _, component = connected_components(matrix, directed=False)
    sizes = np.bincount(component)
    order = np.argsort(-sizes, kind="stable")[:dim]  # there is no use for more components than coordinates
    values, vectors = np.empty(0), np.zeros((matrix.shape[0], 0))
    for number in order:
        members = np.flatnonzero(component == number)
        own, inside = _component_eigenvectors(matrix[members][:, members], min(dim, len(members)), seed)
        placed = np.zeros((matrix.shape[0], len(own)))
        placed[members] = inside
        values, vectors = np.concatenate([values, own]), np.hstack([vectors, placed])
        kept = np.argsort(-values, kind="stable")[:dim]
        values, vectors = values[kept], vectors[:, kept]
    missing = dim - len(values)  # tiny components that have no vectors left
    return np.pad(values, (0, missing)), np.pad(vectors, ((0, 0), (0, missing)))


def _component_eigenvectors(matrix: csr_matrix, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Largest eigenvalues, falling, of a connected graph; signs are fixed by the vectors' largest entries."""
    from scipy.sparse.linalg import eigsh

    size = matrix.shape[0]
    if size <= max(_SMALL, 4 * dim):
        values, vectors = np.linalg.eigh(matrix.toarray())
        values, vectors = values[-dim:], vectors[:, -dim:]
    else:
        start = torch.rand(size, generator=generator(seed, "spectral embedding"), dtype=torch.float64).numpy()
        values, vectors = eigsh(matrix, dim, which="LA", v0=start, tol=_TOLERANCE)
    order = np.argsort(-values)
    values, vectors = np.minimum(values[order], 1.0), vectors[:, order]
    values[0] = 1.0  # by theory, and so that components compare as equal
    largest = np.abs(vectors).argmax(axis=0)
    return values, vectors * np.sign(vectors[largest, np.arange(dim)])
