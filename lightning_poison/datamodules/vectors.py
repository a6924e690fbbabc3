"""Feature vectors that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["Vectors"]


class Vectors(Dataset[tuple[Tensor, int]]):
    """Items are (vector, label).

    Args:
        data: shape (n, d), float32.
        targets: shape (n,), int64.
        transform: augmentation of one vector.

    Example:
        >>> vectors = Vectors(torch.eye(2), torch.tensor([1, 0]))
        >>> vectors[1][0].tolist(), vectors[1][1], len(vectors)
        ([0.0, 1.0], 0, 2)
    """

    def __init__(self, data: Tensor, targets: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> None:
        self.data = data
        self.targets = targets
        self.transform = transform

    def __len__(self) -> int:
        """Number of vectors."""
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One vector (d,) and its label."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """Several items at once."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        vectors = list(self.data[chosen].unbind())
        if self.transform is not None:
            vectors = [self.transform(vector) for vector in vectors]
        return list(zip(vectors, self.targets[chosen].tolist(), strict=True))

    def keep(self, index: Tensor, targets: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> Vectors:
        """The vectors at ``index`` under the given labels.

        Args:
            index: shape (m,), int64.
            targets: shape (m,), int64.
            transform: augmentation of the new data set.
        """
        return Vectors(self.data[index], targets, transform)
