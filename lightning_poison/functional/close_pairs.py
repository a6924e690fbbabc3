r"""Pairs of points within a distance of each other, found block by block.

Whether a pair is close is decided in float64, and a distance within a millionth of the bound counts as the bound: what
single-precision inputs and other machines round differently does not matter. Single precision only sorts out the pairs
for which its error bound leaves no doubt.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_number
from lightning_poison.functional.random_streams import generator

__all__ = ["TOLERANCE", "check_exponent", "close_pairs", "distance_quantile", "pair_distances"]

TOLERANCE = 1e-6
"""Distances of at most ``gamma * (1 + TOLERANCE)`` count as within ``gamma``."""

_ROWS, _COLUMNS = 512, 8192  # of a tile of distances
_LEADING = 128  # coordinates that are looked at first
_FEW = 0.04  # share of a tile's pairs up to which they are better looked at one by one
_ENTRIES = 2**21  # coordinates of pairs at once
_SAMPLED = 100_000
_SPACING = float(np.finfo(np.float32).eps)
_LARGE = 1e15  # its square is far from overflow in float32

_Array = NDArray[Any]


def close_pairs(
    points: Tensor, gamma: float, p: float = 2.0, advance: Callable[[int], object] = lambda _: None
) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Every pair i < j with :math:`\|x_i - x_j\|_p \le \gamma`, without an n x n matrix.

    Args:
        points: shape (n, ...), float; flattened.
        gamma: the distance, at least 0.
        p: exponent of the norm, at least 1; ``inf``: the largest difference.
        advance: called with the number of points that are done.

    Yields:
        i and j, shape (m,), int32, for a block of consecutive i; rising in i, then in j.

    Raises:
        UserError: an argument is out of range, or the points are not finite.

    Example:
        >>> points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 0.0]])
        >>> [(i.tolist(), j.tolist()) for i, j in close_pairs(points, 4.0)]
        [([0, 1], [2, 2])]
    """
    gamma = check_number("gamma", gamma, minimum=0)
    check_exponent(p)
    flat = _flat(points)
    if len(flat) < 2:
        advance(len(flat))
        return
    p = math.inf if gamma == 0 else p  # all norms agree on what is 0, and no power of this one vanishes
    tiles: _Tiles = _EuclideanTiles(flat, gamma) if p == 2 else _OtherTiles(flat, gamma, p)
    for start in range(0, len(flat), _ROWS):
        rows = slice(start, min(start + _ROWS, len(flat)))
        close = np.zeros((rows.stop - start, len(flat) - start), dtype=bool)
        for left in range(start, len(flat), _COLUMNS):
            columns = slice(left, min(left + _COLUMNS, len(flat)))
            close[:, left - start : columns.stop - start] = _decided(tiles, flat, rows, columns, gamma, p)
        first, second = np.nonzero(close)
        above = second > first  # both count from ``start``
        yield tuple(torch.from_numpy((found[above] + start).astype(np.int32)) for found in (first, second))  # type: ignore[misc]  # two of them
        advance(rows.stop - start)


def distance_quantile(points: Tensor, quantile: float, p: float = 2.0, seed: int = 0) -> float:
    """A distance that the given share of all pairs of points have at most.

    It is the distance of a pair, among a hundred thousand that are drawn, or among all where there are no more.

    Args:
        points: shape (n, ...), float, n >= 2.
        quantile: the share, in [0, 1]; 0: the smallest distance.
        p: exponent of the norm.
        seed: of the draw.

    Raises:
        UserError: there is one point only, or an argument is out of range.

    Example:
        >>> distance_quantile(torch.tensor([[0.0], [1.0], [3.0]]), 0.5)
        2.0
    """
    quantile = check_number("quantile", quantile, minimum=0, maximum=1, remedy="for 1 % write 0.01")
    check_exponent(p)
    flat = _flat(points)
    count = len(flat)
    if count < 2:
        raise UserError(f"distances need at least two points, got {count}; name larger classes")
    if count * (count - 1) // 2 <= _SAMPLED:
        first, second = torch.triu_indices(count, count, 1)
    else:
        stream = generator(seed, "pairs of points")
        first = torch.randint(count, (_SAMPLED,), generator=stream)
        second = (first + torch.randint(1, count, (_SAMPLED,), generator=stream)) % count
    distances = pair_distances(flat, first, second, p)
    rank = max(math.ceil(round(quantile * len(distances), 6)), 1)
    return float(distances.kthvalue(rank).values)


def pair_distances(points: Tensor, first: Tensor, second: Tensor, p: float = 2.0) -> Tensor:
    """Distances of given pairs in float64, a few pairs at a time.

    Args:
        points: shape (n, d), float.
        first: shape (m,), integer.
        second: shape (m,), integer.
        p: exponent of the norm.

    Returns:
        shape (m,), float64.

    Example:
        >>> pair_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([0]), torch.tensor([1]), p=1)
        tensor([7.], dtype=torch.float64)
    """
    distances = torch.empty(len(first), dtype=torch.float64)
    chunk = max(1, _ENTRIES // max(points.shape[1], 1))
    for start in range(0, len(first), chunk):
        some = slice(start, start + chunk)
        differences = points[first[some]].double() - points[second[some]].double()
        distances[some] = torch.linalg.vector_norm(differences, ord=p, dim=1)
    return distances


def check_exponent(p: float) -> float:
    """Return ``p`` if it is the exponent of a norm.

    Raises:
        UserError: it is below 1, or no number.

    Example:
        >>> check_exponent(float("inf"))
        inf
    """
    return p if p == math.inf else check_number("p", p, minimum=1, remedy="1, 2 and inf are usual")


class _Tiles(ABC):
    """What single precision can say about the distances of two blocks of points."""

    @abstractmethod
    def look(self, rows: slice, columns: slice) -> tuple[_Array, _Array]:
        """Which pairs are close for certain, and which may be: two bool matrices without a common entry."""


def _decided(tiles: _Tiles, points: Tensor, rows: slice, columns: slice, gamma: float, p: float) -> _Array:
    close, doubtful = tiles.look(rows, columns)
    first, second = (torch.from_numpy(places) for places in np.nonzero(doubtful))
    distances = pair_distances(points, first + rows.start, second + columns.start, p)
    close[doubtful] = (distances <= gamma * (1 + TOLERANCE)).numpy()
    return close


class _EuclideanTiles(_Tiles):
    r""":math:`\|a\|^2 + \|b\|^2 - 2 a^T b` of centred points.

    Rounding a coordinate, a product and the sum of d of them costs at most :math:`(d + 16) \epsilon (|a|^2 + |b|^2)`,
    :math:`\epsilon` being the spacing of float32 at 1 and the order of the sum being anyone's (Higham, "Accuracy and
    stability of numerical algorithms", 2002, eq. (3.5)). NumPy multiplies in single precision whatever torch is told.
    """

    def __init__(self, points: Tensor, gamma: float) -> None:
        self.points, scale = _centred(points, None)
        self.squares = np.square(self.points, dtype=np.float64).sum(axis=1).astype(np.float32)
        error = (self.points.shape[1] + 16) * _SPACING * 2 * float(self.squares.max())
        limit = min(gamma / scale * (1 + TOLERANCE), _LARGE) ** 2
        self.certain, self.possible = limit - error, limit + error

    def look(self, rows: slice, columns: slice) -> tuple[_Array, _Array]:
        squares = self.points[rows] @ self.points[columns].T
        squares *= -2
        squares += self.squares[rows, None]
        squares += self.squares[columns]
        close = squares <= self.certain
        return close, (squares <= self.possible) & ~close


class _OtherTiles(_Tiles):
    r"""Distances over the coordinates that vary most, which are at most the whole, then over all where need be.

    Points are measured in units of the bound, so that no power under- or overflows near it. Rounding coordinates of at
    most M costs :math:`\epsilon M d^{1/p}`, and the sum of d powers :math:`d \epsilon`, see :class:`_EuclideanTiles`.
    """

    def __init__(self, points: Tensor, gamma: float, p: float) -> None:
        unit = gamma * (1 + TOLERANCE) or 1.0
        centred, _ = _centred(points, unit)
        order = np.argsort(-np.einsum("nd,nd->d", centred, centred), kind="stable")
        self.points = torch.from_numpy(centred[:, order])
        self.leading = self.points[:, :_LEADING].contiguous()
        width, largest = centred.shape[1], float(np.abs(centred).max())
        summed = 0 if p == math.inf else width
        error = (summed + 4) * _SPACING + 2 * _SPACING * width ** (1 / p) * largest
        bound = 1.0 if gamma else 0.0
        self.certain, self.possible, self.p = bound - error, bound + error, p

    def look(self, rows: slice, columns: slice) -> tuple[_Array, _Array]:
        doubtful = _distances(self.leading[rows], self.leading[columns], self.p) <= self.possible
        if doubtful.mean() <= _FEW:
            return np.zeros_like(doubtful), doubtful
        distances = _distances(self.points[rows], self.points[columns], self.p)
        close = distances <= self.certain
        return close, (distances <= self.possible) & ~close


def _distances(first: Tensor, second: Tensor, p: float) -> _Array:
    distances: _Array = torch.cdist(first, second, p=p, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    return distances


def _centred(points: Tensor, unit: float | None) -> tuple[_Array, float]:
    """Points around their mean in a unit (None: their largest coordinate), float32, and the unit."""
    chunks = torch.split(points, max(1, _ENTRIES // max(points.shape[1], 1)))
    mean = sum(chunk.double().sum(dim=0) for chunk in chunks) / len(points)
    if unit is None:
        unit = max(float((chunk.double() - mean).abs().max()) for chunk in chunks) or 1.0
    centred = np.empty(points.shape, dtype=np.float32)
    start = 0
    for chunk in chunks:
        centred[start : start + len(chunk)] = ((chunk.double() - mean) / unit).clamp(-_LARGE, _LARGE).numpy()
        start += len(chunk)
    return centred, unit


def _flat(points: Tensor) -> Tensor:
    flat = check_finite("points", points, remedy="clean the inputs or change the space").detach().cpu().flatten(1)
    return flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
