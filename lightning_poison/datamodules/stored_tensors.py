"""Labelled inputs that fit into memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["StoredTensors"]


class StoredTensors(Dataset[tuple[Tensor, int]]):
    """Items are (input, label); how an input comes out of its storage is a subclass's :meth:`_decoded`.

    Args:
        data: shape (n, ...), as stored.
        targets: shape (n,), int64.
        transform: augmentation of one decoded input.
    """

    def __init__(self, data: Tensor, targets: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> None:
        self.data = data
        self.targets = targets
        self.transform = transform

    def __len__(self) -> int:
        """Number of points."""
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One input, float32, and its label."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """Several items at once, decoded together."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        inputs = [self._transformed(one) for one in self._decoded(self.data[chosen]).unbind()]
        return list(zip(inputs, self.targets[chosen].tolist(), strict=True))

    def keep(self, index: Tensor, targets: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> Self:
        """The points at ``index`` under the given labels.

        Args:
            index: shape (m,), int64.
            targets: shape (m,), int64.
            transform: augmentation of the new data set.
        """
        kept = copy.copy(self)
        kept.data, kept.targets, kept.transform = self.data[index], targets, transform
        return kept

    def _decoded(self, stored: Tensor) -> Tensor:
        """Rows of ``data`` as float32 inputs, (m, ...)."""
        return stored

    def _transformed(self, decoded: Tensor) -> Tensor:
        """One decoded input after its augmentation."""
        return decoded if self.transform is None else self.transform(decoded)
