"""A data set in which some points are poisoned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_poison.errors import UserError
from lightning_poison.functional.random_state import kept_random_state
from lightning_poison.poisons import PoisonList

__all__ = ["PoisonedDataset", "find_poisoned_dataset"]


class PoisonedDataset(Dataset[Any]):
    """Wraps a map-style data set of (input, label, ...) items and poisons what a list of poisons names.

    The inner data set is never changed. A poison's label and input have the types of clean ones (int, NumPy integer,
    tensor), and an item keeps its type (tuple, list, named tuple). Added points stand behind the clean ones.

    Args:
        dataset: the clean data.
        flips: the poisons: which labels to replace, which inputs, which points to add.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> from lightning_poison.poisons import FlipList
        >>> clean = TensorDataset(torch.rand(3, 2), torch.tensor([0, 1, 1]))
        >>> flips = FlipList(torch.tensor([2]), torch.tensor([1]), torch.tensor([0]))
        >>> [int(label) for _, label in PoisonedDataset(clean, flips)]
        [0, 1, 0]
    """

    def __init__(self, dataset: Any, flips: PoisonList) -> None:
        self.dataset = dataset
        self.flips = flips
        self._rows = {position: row for row, position in enumerate(flips.positions(len(dataset)).tolist())}
        self._example: Any = None

    def __len__(self) -> int:
        """Number of points, poisoned or not."""
        return len(self.dataset) + self.flips.num_added

    def __getitem__(self, index: int) -> Any:
        """The item at ``index``, poisoned where the list says so."""
        position = int(index) + len(self) if int(index) < 0 else int(index)
        if position >= len(self.dataset) and position in self._rows:
            return self._added(self._rows[position])
        # A data set of no added points is asked for exactly what it was asked for without poisons.
        return self._replaced(self.dataset[position if self.flips.num_added else index], position)

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
            clean = [index for index in indices if int(index) < len(self.dataset)]
            found = iter(zip(inner(clean) if clean else [], clean, strict=True))
            return [
                self._replaced(*next(found)) if int(index) < len(self.dataset) else self[index] for index in indices
            ]

        return items

    def _replaced(self, item: Any, position: int) -> Any:
        row = self._rows.get(int(position))
        if row is None:
            return item
        if not isinstance(item, (tuple, list)) or len(item) < 2:
            raise UserError(
                f"training items must be (input, label, ...) tuples or lists, got {type(item).__name__} at {position}; "
                "wrap the data set so that its label stands second"
            )
        old = int(self.flips.old_label[row])
        if int(item[1]) != old:
            raise UserError(
                f"training point {position} has label {int(item[1])}, but {self.flips.name} says {old}; "
                "the data set must give every point the same label each time"
            )
        return self._poisoned(item, row)

    def _added(self, row: int) -> Any:
        if self._example is None:
            with kept_random_state():
                self._example = self.dataset[0]
        return self._poisoned(self._example, row)

    def _poisoned(self, item: Any, row: int) -> Any:
        """``item`` with the input and the label of a row."""
        new = int(self.flips.new_label[row])
        values = [self.flips.input_at(row, item[0]), _like(item[1], new), *item[2:]]
        if isinstance(item, list):
            return values
        return type(item)(*values) if hasattr(item, "_fields") else tuple(values)


def find_poisoned_dataset(dataset: Any) -> PoisonedDataset | None:
    """The poisoned data set within ``dataset``, or None: looks inside subsets and other wrappers.

    Example:
        >>> from torch.utils.data import Subset
        >>> from lightning_poison.poisons import FlipList
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
