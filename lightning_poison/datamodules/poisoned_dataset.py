"""A data set in which some points are poisoned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import as_integer, kind_shown
from lightning_poison.functional.random_streams import kept_random_state
from lightning_poison.poisons import PoisonList

__all__ = ["PoisonedDataset", "ReadingCount", "find_poisoned_dataset", "item_label"]

_SMALL = 128  # every integer type holds the class numbers below


class PoisonedDataset(Dataset[Any]):
    """Wraps a map-style data set of (input, label, ...) items and poisons what a list of poisons names.

    The inner data set is never changed. A poison's label and input have the types of clean ones (int, NumPy integer,
    tensor), and an item keeps its type (tuple, list, named tuple). Where the labels' integers are too small to hold a
    new class (uint8 and 256), all labels become int64. Added points stand behind the clean ones.

    Args:
        dataset: the clean data.
        flips: the poisons: which labels to replace, which inputs, which points to add.
        reading: counts the items that are read; None: nobody counts.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> from lightning_poison.poisons import FlipList
        >>> clean = TensorDataset(torch.rand(3, 2), torch.tensor([0, 1, 1]))
        >>> flips = FlipList(torch.tensor([2]), torch.tensor([1]), torch.tensor([0]))
        >>> [int(label) for _, label in PoisonedDataset(clean, flips)]
        [0, 1, 0]
    """

    def __init__(self, dataset: Any, flips: PoisonList, reading: ReadingCount | None = None) -> None:
        self.dataset = dataset
        self.flips = flips
        self.reading = reading
        self._highest = int(flips.new_label.max()) if len(flips) else 0
        self._rows = {position: row for row, position in enumerate(flips.positions(len(dataset)).tolist())}
        self._example: Any = None

    def __len__(self) -> int:
        """Number of points, poisoned or not."""
        return len(self.dataset) + self.flips.num_added

    def __getitem__(self, index: int) -> Any:
        """The item at ``index``, poisoned where the list says so."""
        if self.reading is not None:
            self.reading.add(1)
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
            if self.reading is not None:
                self.reading.add(len(indices))
            clean = [index for index in indices if int(index) < len(self.dataset)]
            found = iter(zip(inner(clean) if clean else [], clean, strict=True))
            return [
                self._replaced(*next(found)) if int(index) < len(self.dataset) else self[index] for index in indices
            ]

        return items

    def _replaced(self, item: Any, position: int) -> Any:
        row = self._rows.get(int(position))
        if row is None:
            return item if self._highest < _SMALL else self._widened(item)
        found, old = item_label(item, position), int(self.flips.old_label[row])
        if found != old:
            raise UserError(
                f"training point {position} has label {found}, but {self.flips.name} says {old}; "
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
        label = _like(_wide_enough(item[1], self._highest), int(self.flips.new_label[row]))
        return _made_like(item, [self.flips.input_at(row, item[0]), label, *item[2:]])

    def _widened(self, item: Any) -> Any:
        """A clean item whose label has the dtype of the poisons' labels, so that both fit into one batch."""
        if not isinstance(item, (tuple, list)) or len(item) < 2:
            return item
        label = _wide_enough(item[1], self._highest)
        return item if label is item[1] else _made_like(item, [item[0], label, *item[2:]])


class ReadingCount:
    """How many items of a data set were read, in this process and in a loader's workers.

    Each worker writes to a place of its own in shared memory, so nothing is lost, and nobody waits.

    Args:
        num_workers: of the loader.

    Example:
        >>> count = ReadingCount(num_workers=2)
        >>> count.add(3)
        >>> with count.unchanged():
        ...     count.add(5)
        >>> count.total
        3
    """

    def __init__(self, num_workers: int) -> None:
        self._shared = torch.zeros(num_workers + 1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]  # torch's
        self._counts = self._shared.numpy()

    def add(self, items: int) -> None:
        """Count items that were read just now."""
        worker = get_worker_info()
        self._counts[0 if worker is None else min(worker.id + 1, len(self._counts) - 1)] += items

    @property
    def total(self) -> int:
        """Items read so far, by whomever."""
        return int(self._counts.sum())

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Count nothing that this process reads meanwhile."""
        before = int(self._counts[0])
        try:
            yield
        finally:
            self._counts[0] = before

    def __getstate__(self) -> dict[str, Tensor]:
        """The shared memory; a worker that is spawned finds it again."""
        return {"shared": self._shared}

    def __setstate__(self, state: dict[str, Tensor]) -> None:
        """Count where the others count."""
        self._shared = state["shared"]
        self._counts = self._shared.numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> ReadingCount:
        """A copy of the data set is read in its place."""
        return self


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


def item_label(item: Any, position: int, part: str = "training") -> int:
    """The label of an item (input, label, ...): a whole number of Python, NumPy or torch, or a vector of one.

    Args:
        item: what a data set gives at an index.
        position: the index, for messages.
        part: of the data, for messages.

    Raises:
        UserError: the item or its label is something else; the message says what came.

    Example:
        >>> item_label((0.5, torch.tensor([2])), 0), item_label([0.5, np.uint16(40_000), "more"], 1)
        (2, 40000)
    """
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise UserError(
            f"{part} items must be (input, label, ...) tuples or lists, got {kind_shown(item)} at {position}; "
            "wrap the data set so that its label stands second"
        )
    label = item[1]
    if isinstance(label, (Tensor, np.ndarray)) and label.ndim and np.prod(label.shape) == 1:
        label = label.reshape(())
    number = as_integer(label)
    if number is not None:
        return number
    if len(item) > 2 and as_integer(item[0]) is not None and as_integer(item[2]) is not None and _is_input(label):
        raise UserError(
            f"{part} items must be (input, label, ...), got {kind_shown(item)} at {position}, which looks like "
            "(index, input, label); wrap the data set so that its label stands second, as in (input, label, index)"
        )
    remedy = "not one-hot or soft labels" if np.ndim(label) else "as int(label) is"
    raise UserError(
        f"labels must be integers, got {kind_shown(item[1])} at {part} point {position}; "
        f"give class numbers 0 to K - 1, {remedy}"
    )


def _is_input(value: Any) -> bool:
    """Whether it is rather an input than a label: a tensor or an array of several numbers, or a picture."""
    if isinstance(value, (Tensor, np.ndarray)):
        return bool(np.prod(value.shape) > 1)
    return hasattr(value, "mode") and hasattr(value, "size")


def _made_like(item: Any, values: list[Any]) -> Any:
    if isinstance(item, list):
        return values
    return type(item)(*values) if hasattr(item, "_fields") else tuple(values)


def _wide_enough(label: Any, highest: int) -> Any:
    """A label whose type can hold ``highest``: itself, or the same as int64."""
    if isinstance(label, Tensor):
        integers = not label.is_floating_point() and label.dtype != torch.bool
        return label.long() if integers and torch.iinfo(label.dtype).max < highest else label
    if isinstance(label, (np.integer, np.ndarray)) and label.dtype.kind in "iu":
        return label.astype(np.int64) if np.iinfo(label.dtype).max < highest else label
    return label


def _like(label: Any, value: int) -> Any:
    if isinstance(label, Tensor):
        return torch.full_like(label, value)
    if isinstance(label, (np.integer, np.ndarray)):
        return np.full_like(label, value)[()]
    return value
