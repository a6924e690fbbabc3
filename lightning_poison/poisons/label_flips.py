"""Label flips: a selector times a relabelling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning_poison
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_kind
from lightning_poison.poisons.base import Candidates, Poison, Selector
from lightning_poison.poisons.budget import remark_on_classes
from lightning_poison.poisons.description import arguments, describe
from lightning_poison.poisons.flip_list import FlipList
from lightning_poison.poisons.relabellings import NextClass, Relabelling
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["LabelFlips"]


@dataclass(frozen=True)
class LabelFlips(Poison):
    """Flips the labels of the selected training points.

    Args:
        select: which points.
        relabel: to what; None: to the next class, or, for a selector that brings its own labels (``FromFile``), to
            those.

    Raises:
        UserError: one of the two is something else, or both say what the new labels are.

    Example:
        >>> import torch
        >>> from lightning_poison.poisons import NewClass, RandomPoints
        >>> training_set = TrainingSet(torch.arange(40) % 4, num_classes=4)
        >>> LabelFlips(RandomPoints(per_class=1), NewClass()).craft(training_set, seed=0).new_label
        tensor([4, 4, 4, 4])
    """

    select: Selector
    relabel: Relabelling | None = None

    def __post_init__(self) -> None:
        check_kind("select", self.select, Selector, "RandomPoints(count=10)")
        check_kind("relabel", self.relabel, Relabelling, "NextClass()", optional=True)
        brings_labels = type(self.select).own_relabelling is not Selector.own_relabelling
        if brings_labels and self.relabel is not None:
            raise UserError(
                f"relabel must be left out with {type(self.select).__name__}, whose list holds the new labels, "
                f"got {describe(self.relabel)}"
            )
        if not brings_labels and self.relabel is None:
            object.__setattr__(self, "relabel", NextClass())

    def num_classes_after(self, num_classes: int) -> int:
        """Number of classes of the poisoned data: K, or K + 1 where flips go to a new class."""
        return self._relabelling().num_classes_after(num_classes)

    def craft(self, training_set: TrainingSet, seed: int) -> FlipList:
        """The flips of one seed, with their provenance; a ``remark`` in it says what is odd about the classes' numbers.

        Raises:
            UserError: the budget, the classes or the list do not fit the data.
        """
        relabelling = self._relabelling()
        num_classes_after = relabelling.num_classes_after(training_set.num_classes)
        candidates = Candidates.of(training_set, relabelling, seed)
        index = self.select.select(candidates, seed)
        new_label = candidates.new_labels[index]
        remark = remark_on_classes(training_set.labels, new_label, training_set.num_classes)
        flips = FlipList(
            index=training_set.positions_of(index),
            old_label=training_set.labels[index],
            new_label=new_label,
            provenance=self._provenance(training_set, seed, num_classes_after)
            | candidates.notes
            | ({} if remark is None else {"remark": remark}),
        )
        return flips.check(training_set, num_classes_after)

    def check(self, training_set: TrainingSet, seed: int) -> None:
        """Refuse a budget, classes or a list that do not fit the data.

        Raises:
            UserError: they do not.
        """
        super().check(training_set, seed)
        self.select.check(Candidates.of(training_set, self._relabelling(), seed))

    def _relabelling(self) -> Relabelling:
        relabelling = self.relabel or self.select.own_relabelling()
        return relabelling if relabelling is not None else NextClass()

    def _provenance(self, training_set: TrainingSet, seed: int, num_classes_after: int) -> dict[str, Any]:
        return {
            "strategy": describe(self),
            "arguments": arguments(self),
            "seed": seed,
            "fingerprint": training_set.fingerprint,
            "num_points": training_set.num_points,
            "num_classes": training_set.num_classes,
            "num_classes_after": num_classes_after,
            "package_version": lightning_poison.__version__,
        }
