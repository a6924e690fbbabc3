"""What every strategy ends in: which points of the poisoned data are poisons."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from lightning_poison.errors import UserError

if TYPE_CHECKING:
    from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["PoisonList"]


class PoisonList(ABC):
    """Poisons with their provenance, in a fixed order.

    The poisoned data are the n clean points, of which some are replaced, and the added ones behind them.

    Attributes:
        index: shape (b,), int64: positions in the training set; -1 for an added point.
        old_label: shape (b,), int64: the true classes.
        new_label: shape (b,), int64: the labels in the poisoned data.
        provenance: strategy, arguments, seed, fingerprint of the data, ...: plain values that JSON can hold.
        file_name: what such a list is called beside a run's logs.
        title: what the report calls it.
        reader: the class that applies such a file to the data.
    """

    index: Tensor
    old_label: Tensor
    new_label: Tensor
    provenance: Mapping[str, Any]
    file_name: ClassVar[str]
    title: ClassVar[str]
    reader: ClassVar[str]

    def __len__(self) -> int:
        """Number of poisons, b."""
        return self.index.numel()

    @property
    def num_added(self) -> int:
        """How many points stand behind the clean ones."""
        return int((self.index < 0).sum())

    def positions(self, num_points: int) -> Tensor:
        """Where each poison stands in the poisoned data: shape (b,), int64.

        Args:
            num_points: of the clean data.
        """
        added = self.index < 0
        return torch.where(added, num_points - 1 + added.cumsum(0), self.index)

    def apply(self, labels: Tensor) -> Tensor:
        """The labels of the poisoned data, given the clean ones.

        Args:
            labels: shape (n,), integer.

        Returns:
            shape (n + added,), of the same dtype; int64 where that cannot hold a new label.

        Raises:
            UserError: the list belongs to other data.
        """
        poisoned = torch.cat([labels.long(), labels.new_zeros(self.num_added, dtype=torch.int64)])
        poisoned[self.positions(labels.numel())] = self.new_label
        fits = len(self) == 0 or int(self.new_label.max()) <= torch.iinfo(labels.dtype).max
        return poisoned.to(labels.dtype) if fits else poisoned

    def input_at(self, row: int, clean: Any) -> Any:  # noqa: ARG002  # the signature is shared
        """The poisoned input of a row, in the type of a clean one.

        Args:
            row: of the list.
            clean: the input that is replaced; for an added point any.
        """
        return clean

    def _column(self, name: str) -> Tensor:
        """A field as a vector of int64 on the CPU."""
        column: Tensor = getattr(self, name)
        if column.ndim != 1 or column.is_floating_point() or column.dtype == torch.bool:
            shape = tuple(column.shape)
            raise UserError(f"{name} must be a vector of integers, got shape {shape}, dtype {column.dtype}")
        return column.detach().to("cpu", torch.int64)

    @property
    @abstractmethod
    def name(self) -> str:
        """How messages call this list."""

    @abstractmethod
    def check(self, training_set: TrainingSet, num_classes_after: int | None = None) -> PoisonList:
        """Return the list if it was made for this data.

        Raises:
            UserError: it was not.
        """

    @abstractmethod
    def write(self, path: str | Path) -> Path:
        """Write the list, whole or not at all."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python, fit for a checkpoint that is loaded with ``weights_only``."""

    @abstractmethod
    def short(self) -> str:
        """What it is in a heading, such as "100 flipped labels"."""

    @abstractmethod
    def in_words(self) -> str:
        """What was done, such as "100 training labels were flipped"."""
