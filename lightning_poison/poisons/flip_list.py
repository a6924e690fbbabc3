"""The interchange format of every strategy: which labels are flipped, to what, and where that comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.poisons.flip_list_csv import read_flip_list, write_flip_list
from lightning_poison.poisons.poison_list import PoisonList
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["FlipList"]


@dataclass(frozen=True, eq=False)
class FlipList(PoisonList):
    """A table ``index, old_label, new_label`` with its provenance.

    Rows are sorted by index on construction.

    Args:
        index: shape (b,), int64: positions in the training set.
        old_label: shape (b,), int64: the clean labels, which guard against other data.
        new_label: shape (b,), int64: the flipped labels.
        provenance: strategy, arguments, seed, fingerprint of the data, ...: plain values that JSON can hold.
        source: the file that the list was read from.
        rows: shape (b,), int64: the line of each flip in that file, for messages.

    Raises:
        UserError: the columns differ in length, an index is negative or appears twice, a label is negative, or a
            new label equals the old one.

    Example:
        >>> flips = FlipList(torch.tensor([2, 0]), torch.tensor([1, 0]), torch.tensor([2, 1]))
        >>> flips.apply(torch.tensor([0, 0, 1]))
        tensor([1, 0, 2])
    """

    file_name: ClassVar[str] = "flips.csv"
    title: ClassVar[str] = "Flipped labels"
    reader: ClassVar[str] = "FromFile"

    index: Tensor
    old_label: Tensor
    new_label: Tensor
    provenance: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    rows: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        columns = {name: self._column(name) for name in ("index", "old_label", "new_label")}
        if len({column.numel() for column in columns.values()}) > 1:
            lengths = ", ".join(f"{name} {column.numel()}" for name, column in columns.items())
            raise UserError(f"index, old_label and new_label must have one length, got {lengths}")
        order = torch.argsort(columns["index"], stable=True)
        for name, column in columns.items():
            object.__setattr__(self, name, column[order])
        if self.rows is not None:
            object.__setattr__(self, "rows", self.rows[order])
        object.__setattr__(self, "provenance", dict(self.provenance))
        self._check_rows()

    @classmethod
    def empty(cls, provenance: Mapping[str, Any] | None = None) -> FlipList:
        """A list without flips: the clean run.

        Example:
            >>> len(FlipList.empty())
            0
        """
        nothing = torch.zeros(0, dtype=torch.int64)
        return cls(nothing, nothing, nothing, provenance or {})

    def same_flips(self, other: FlipList) -> bool:
        """Whether both lists hold the same rows; the provenance may differ."""
        return all(
            torch.equal(getattr(self, name), getattr(other, name)) for name in ("index", "old_label", "new_label")
        )

    def apply(self, labels: Tensor) -> Tensor:
        """A copy of ``labels``, shape (n,), in which the listed points carry their new labels.

        Raises:
            UserError: an index lies outside, or an old label is not the one found.
        """
        self._check_old_labels(labels)
        return super().apply(labels)

    def check(self, training_set: TrainingSet, num_classes_after: int | None = None) -> FlipList:
        """Return the list if it was drawn for this data.

        Args:
            training_set: the clean data.
            num_classes_after: number of classes with the flips; by default one new class is allowed.

        Raises:
            UserError: the fingerprint differs, an index lies outside, an old label is not the one found, or a new
                label is out of range; the message names the row.
        """
        drawn_for = self.provenance.get("fingerprint")
        if drawn_for and training_set.fingerprint and drawn_for != training_set.fingerprint:
            raise UserError(
                f"{self.name} was drawn for other data: its fingerprint is {drawn_for}, this training set's is "
                f"{training_set.fingerprint}; use the same data, classes, max_samples and seed as then"
            )
        if training_set.positions is None:
            self._check_old_labels(training_set.labels)
        else:
            self._check_trained(training_set)
        after = num_classes_after or training_set.num_classes + 1
        self._refuse(
            self.new_label >= after,
            lambda at: (
                f"new_label {int(self.new_label[at])} is out of range; {after} classes are numbered 0 to {after - 1}"
            ),
        )
        return self

    def write(self, path: str | Path) -> Path:
        """Write the list as CSV, whole or not at all.

        Raises:
            UserError: the folder cannot be written.
        """
        return write_flip_list(path, (self.index, self.old_label, self.new_label), self.provenance)

    @classmethod
    def read(cls, path: str | Path) -> FlipList:
        """Read a list that :meth:`write` or a person wrote.

        Raises:
            UserError: the file is missing or malformed; the message names the file and the row.
        """
        table, provenance, rows = read_flip_list(path)
        index, old_label, new_label = table.unbind(1)
        return cls(index, old_label, new_label, provenance, str(path), rows)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python, fit for a checkpoint that is loaded with ``weights_only``."""
        return {
            "index": self.index,
            "old_label": self.old_label,
            "new_label": self.new_label,
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> FlipList:
        """Invert :meth:`state_dict`.

        Example:
            >>> flips = FlipList(torch.tensor([4]), torch.tensor([0]), torch.tensor([1]), {"seed": 3})
            >>> FlipList.from_state_dict(flips.state_dict()).same_flips(flips)
            True
        """
        return cls(state["index"].cpu(), state["old_label"].cpu(), state["new_label"].cpu(), state["provenance"])

    def short(self) -> str:
        """What it is in a heading."""
        count = len(self)
        return "clean labels" if not count else "1 flipped label" if count == 1 else f"{count:,} flipped labels"

    def in_words(self) -> str:
        """What was done."""
        return f"{len(self):,} training {'label was' if len(self) == 1 else 'labels were'} flipped"

    @property
    def name(self) -> str:
        """How messages call this list."""
        return self.source or "the flip list"

    def _check_rows(self) -> None:
        for name in ("index", "old_label", "new_label"):
            column: Tensor = getattr(self, name)
            self._refuse(column < 0, lambda at, c=column, n=name: f"{n} must be at least 0, got {int(c[at])}")
        repeated = torch.zeros(len(self), dtype=torch.bool)
        repeated[1:] = self.index[1:] == self.index[:-1]
        self._refuse(repeated, lambda at: f"index {int(self.index[at])} is listed twice; keep one of its rows")
        self._refuse(
            self.old_label == self.new_label,
            lambda at: f"new_label equals old_label ({int(self.new_label[at])}); a flip must change the label",
        )

    def _check_old_labels(self, labels: Tensor) -> None:
        labels, n = labels.long(), labels.numel()
        self._refuse(
            self.index >= n,
            lambda at: (
                f"index {int(self.index[at])} is outside of the training set; its {n} points are numbered 0 to {n - 1}"
            ),
        )
        self._compare_labels(labels[self.index])

    def _check_trained(self, training_set: TrainingSet) -> None:
        rows = training_set.rows_of(self.index)
        self._refuse(
            rows < 0,
            lambda at: (
                f"index {int(self.index[at])} is not among the {training_set.num_points} points that the training "
                "loader's sampler yields; a flip there would never be trained on"
            ),
        )
        self._compare_labels(training_set.labels[rows])

    def _compare_labels(self, found: Tensor) -> None:
        self._refuse(
            found != self.old_label,
            lambda at: (
                f"old_label is {int(self.old_label[at])}, but training point {int(self.index[at])} has label "
                f"{int(found[at])}; the list belongs to other data"
            ),
        )

    def _refuse(self, wrong: Tensor, complaint: Any) -> None:
        if wrong.any():
            at = int(wrong.nonzero()[0])
            row = int(self.rows[at]) if self.rows is not None else at
            raise UserError(f"{self.name}, row {row}: {complaint(at)}")
