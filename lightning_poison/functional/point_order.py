"""An order of points that no label decides.

Where data lie in folders sorted by class, the order of the points says what their labels are: whoever moves a file to
another class moves all files between. What depends on the order (which points are landmarks, how points are dealt out,
where sums are rounded) then depends on labels. So points are put into an order of their own, by a hash of their bytes,
before anything looks at them; and points whose bytes are equal, which no such order can tell apart, must be treated
alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["OwnOrder", "PointsInOrder", "point_keys"]

_DIGEST = 16
_BATCH = 1000


@dataclass(frozen=True)
class OwnOrder:
    """Points in the order of their keys; equal ones by label, so that points and labels decide and nothing else.

    Args:
        order: shape (n,), int64: where each point stood before.
        first: shape (n,), int64: for each point the place of the first one that equals it; None: no two are equal.

    Example:
        >>> own = OwnOrder.by_keys([b"b", b"a", b"b"], torch.tensor([1, 0, 0]))
        >>> own.order.tolist(), own.first.tolist()
        ([1, 2, 0], [0, 1, 1])
    """

    order: Tensor
    first: Tensor | None

    @classmethod
    def by_keys(cls, keys: Sequence[bytes], labels: Tensor) -> OwnOrder:
        """The order of points with these keys (n of them) and labels, shape (n,)."""
        rows = labels.tolist()
        order = sorted(range(len(keys)), key=lambda row: (keys[row], rows[row]))
        first: list[int] = []
        for place, row in enumerate(order):
            first.append(first[-1] if place and keys[row] == keys[order[place - 1]] else place)
        alike = any(place != other for place, other in enumerate(first))
        return cls(torch.tensor(order, dtype=torch.int64), torch.tensor(first, dtype=torch.int64) if alike else None)

    @classmethod
    def of(cls, points: Tensor, labels: Tensor) -> OwnOrder:
        """The order of points, shape (n, ...), by their bytes."""
        return cls.by_keys(point_keys(points), labels)

    @property
    def different(self) -> int:
        """How many different points there are."""
        return len(self.order) if self.first is None else int(torch.unique(self.first).numel())

    def alike(self, values: Tensor, dim: int = 0) -> Tensor:
        """Values of points in this order, each replaced by that of the first point that equals it.

        Args:
            values: n of them along ``dim``.
            dim: the dimension of the points.
        """
        return values if self.first is None else values.index_select(dim, self.first.to(values.device))


class PointsInOrder:
    """Points read in batches in some order, as often as asked.

    Args:
        points: shape (n, ...).
        order: shape (n,), int64.

    Example:
        >>> [batch.tolist() for batch in PointsInOrder(torch.tensor([5.0, 6.0]), torch.tensor([1, 0]))]
        [[6.0, 5.0]]
    """

    def __init__(self, points: Tensor, order: Tensor) -> None:
        self._points, self._order = points, order

    def __iter__(self) -> Iterator[Tensor]:
        for part in torch.split(self._order, _BATCH):
            yield self._points[part]


def point_keys(points: Tensor, salt: bytes = b"") -> list[bytes]:
    """A hash of each point's bytes.

    Args:
        points: shape (n, ...), any dtype.
        salt: up to 16 bytes; another one gives other hashes.

    Example:
        >>> one, other, same = point_keys(torch.tensor([[1.0], [2.0], [1.0]]))
        >>> one == same, one == other
        (True, False)
    """
    rows = points.detach().cpu().flatten(1) if points.ndim > 1 else points.detach().cpu()[:, None]
    table = rows.contiguous().view(torch.uint8).numpy() if rows.numel() else rows.new_empty(len(rows), 0).numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=_DIGEST, salt=salt).digest() for row in table]
