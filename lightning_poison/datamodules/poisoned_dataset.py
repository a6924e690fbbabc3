"""A data set in which some labels are flipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_poison.errors import UserError
from lightning_poison.poisons import FlipList

__all__ = ["PoisonedDataset", "find_poisoned_dataset"]


class PoisonedDataset(Dataset[Any]):
    """Wraps a map-style data set of (input, label, ...) items and replaces the labels that a flip list names.

    The inner data set is never changed. A replaced label has the type of the inner one (int, NumPy integer, tensor),
    and an item keeps its type (tuple, list, named tuple).

    Args:
        dataset: the clean data.
        flips: which labels to replace.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> clean = TensorDataset(torch.rand(3, 2), torch.tensor([0, 1, 1]))
        >>> flips = FlipList(torch.tensor([2]), torch.tensor([1]), torch.tensor([0]))
        >>> [int(label) for _, label in PoisonedDataset(clean, flips)]
        [0, 1, 0]
    """

    def __init__(self, dataset: Any, flips: FlipList) -> None:
        self.dataset = dataset
        self.flips = flips
        pairs = zip(flips.old_label.tolist(), flips.new_label.tolist(), strict=True)
        self._labels = dict(zip(flips.index.tolist(), pairs, strict=True))

    def __len__(self) -> int:
        """Number of points, flipped or not."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """The item at ``index``, with its flipped label where it has one."""
        position = int(index)
        return self._replaced(self.dataset[index], position + len(self) if position < 0 else position)

    def __iter__(self) -> Any:
        """Every item in order."""
        return (self[position] for position in range(len(self)))

    @property
    def __getitems__(self) -> Any:
        """Batched access, present exactly where the inner data set has it."""
        inner = getattr(self.dataset, "__getitems__", None)
        if inner is None:
            raise AttributeError("the inner data set has no batched access")

        def items(indices: Sequence[int]) -> list[Any]:
            return [self._replaced(item, int(index)) for item, index in zip(inner(indices), indices, strict=True)]

        return items

    def _replaced(self, item: Any, position: int) -> Any:
        labels = self._labels.get(position)
        if labels is None:
            return item
        if not isinstance(item, (tuple, list)) or len(item) < 2:
            raise UserError(
                f"training items must be (input, label, ...) tuples or lists, got {type(item).__name__} at {position}; "
                "wrap the data set so that its label stands second"
            )
        old, new = labels
        if int(item[1]) != old:
            raise UserError(
                f"training point {position} has label {int(item[1])}, but the flip list says {old}; "
                "the data set must give every point the same label each time"
            )
        values = [item[0], _like(item[1], new), *item[2:]]
        if isinstance(item, list):
            return values
        return type(item)(*values) if hasattr(item, "_fields") else tuple(values)


def find_poisoned_dataset(dataset: Any) -> PoisonedDataset | None:
    """The poisoned data set within ``dataset``, or None: looks inside subsets and other wrappers.

    Example:
        >>> from torch.utils.data import Subset
        >>> poisoned = PoisonedDataset([(0.5, 1)], FlipList.empty())
        >>> find_poisoned_dataset(Subset(poisoned, [0])) is poisoned
        True
    """
    seen: set[int] = set()
    while dataset is not None and id(dataset) not in seen:
        if isinstance(dataset, PoisonedDataset):
            return dataset
        seen.add(id(dataset))
        dataset = getattr(dataset, "dataset", None)
    return None


def _like(label: Any, value: int) -> Any:
    if isinstance(label, Tensor):
        return torch.full_like(label, value)
    if isinstance(label, (np.integer, np.ndarray)):
        return np.full_like(label, value)[()]
    return value
