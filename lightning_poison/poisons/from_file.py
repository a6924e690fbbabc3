"""Poisons that were written down: flips that a file lists, and lists out of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.poisons.base import Candidates, Selector
from lightning_poison.poisons.flip_list import FlipList
from lightning_poison.poisons.points import PoisonPoints
from lightning_poison.poisons.poison_list import PoisonList
from lightning_poison.poisons.relabellings import Relabelling
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["FromFile", "restored_poisons"]


@dataclass(frozen=True)
class FromFile(Selector):
    r"""Takes the points *and* the new labels from a flip list, exactly as the file states them.

    ``LabelFlips(FromFile("flips.csv"))`` therefore takes no relabelling of its own.

    Args:
        path: CSV file ``index,old_label,new_label``, with or without the provenance lines, as we, a person, a
            spreadsheet or a data frame wrote it.

    Raises:
        UserError: it is no path.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "flips.csv"
        >>> _ = path.write_text("index,old_label,new_label\n2,0,1\n")
        >>> FromFile(str(path)).flip_list.new_label
        tensor([1])
    """

    path: str

    def __post_init__(self) -> None:
        if not isinstance(self.path, (str, Path)):
            raise UserError(f"path must name a .csv file of flips, got {self.path!r}; write it as text")

    @cached_property
    def flip_list(self) -> FlipList:
        """What the file holds; read once.

        Raises:
            UserError: the file is missing or malformed.
        """
        return FlipList.read(self.path)

    def select(self, candidates: Candidates, seed: int) -> Tensor:  # noqa: ARG002  # the signature is shared
        """The file's points, after checking that the list belongs to this data; notes where it came from.

        Raises:
            UserError: the list was drawn for other data; the message names the row.
        """
        recorded = self.flip_list.provenance
        candidates.notes.update({f"listed_{key}": recorded[key] for key in ("strategy", "seed") if key in recorded})
        training_set = candidates.training_set
        return training_set.rows_of(self.flip_list.check(training_set).index)

    def own_relabelling(self) -> Relabelling:
        """The file's new labels."""
        return _AsListed(self.flip_list)


@dataclass(frozen=True)
class _AsListed(Relabelling):
    flip_list: FlipList = field(repr=False)

    def num_classes_after(self, num_classes: int) -> int:
        recorded = self.flip_list.provenance.get("num_classes_after")
        highest = int(self.flip_list.new_label.max()) + 1 if len(self.flip_list) else 0
        # A list may add one class; labels beyond it are refused, by row, when the list meets the data.
        return min(max(num_classes, highest, recorded if isinstance(recorded, int) else 0), num_classes + 1)

    def eligible(self, training_set: TrainingSet) -> Tensor:
        listed = torch.zeros(training_set.num_points, dtype=torch.bool)
        listed[training_set.rows_of(self.flip_list.check(training_set).index)] = True
        return listed

    def new_labels(self, training_set: TrainingSet, index: Tensor, seed: int) -> Tensor:  # noqa: ARG002  # the signature is shared
        return self.flip_list.new_label[torch.searchsorted(self.flip_list.index, training_set.positions_of(index))]


def restored_poisons(state: Mapping[str, Any]) -> PoisonList:
    """The list whose ``state_dict`` this is.

    Example:
        >>> len(restored_poisons(FlipList.empty().state_dict()))
        0
    """
    kind = PoisonPoints if "inputs" in state else FlipList
    return kind.from_state_dict(state)
