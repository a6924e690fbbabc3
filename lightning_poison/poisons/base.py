"""What a poison and a selector are, and the points that they may choose from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_poison.poisons.flip_list import FlipList
from lightning_poison.poisons.poison_list import PoisonList
from lightning_poison.poisons.relabellings import Relabelling
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["Candidates", "Poison", "Selector"]


class Poison(ABC):
    """A rule that turns clean training data and a seed into a flip list, or into another list of poisons.

    Attributes:
        file_name: what its lists are called beside a run's logs.
    """

    # Without an annotation, which the command line would look up in the module of every subclass.
    file_name = FlipList.file_name

    @abstractmethod
    def num_classes_after(self, num_classes: int) -> int:
        """Number of classes of the poisoned data, given the number of the clean data."""

    @abstractmethod
    def craft(self, training_set: TrainingSet, seed: int) -> PoisonList:
        """The poisons: the same for the same data and seed, whatever the global random state.

        Args:
            training_set: the clean data.
            seed: of all draws.

        Raises:
            UserError: the budget, the classes or a file do not fit the data.
        """

    def check(self, training_set: TrainingSet, seed: int) -> None:  # noqa: ARG002  # for overriders
        """Refuse at once what would be refused after a long computation.

        Args:
            training_set: the clean data; only its labels may be looked at.
            seed: as for :meth:`craft`.

        Raises:
            UserError: the budget, the classes or the list do not fit the data.
        """
        self.num_classes_after(training_set.num_classes)


class Selector(ABC):
    """A rule that says which training points are flipped."""

    @abstractmethod
    def select(self, candidates: Candidates, seed: int) -> Tensor:
        """The points to flip.

        Args:
            candidates: the clean data, the points that the relabelling can change, and to what.
            seed: for rules that draw.

        Returns:
            shape (b,), int64: distinct indices in increasing order.
        """

    def check(self, candidates: Candidates) -> None:  # noqa: B027  # most have nothing to refuse
        """Refuse at once what :meth:`select` would refuse after a long computation; no input may be looked at.

        Raises:
            UserError: the budget or the classes do not fit the data.
        """

    def own_relabelling(self) -> Relabelling | None:
        """The relabelling that belongs to this selection; None: any may be combined with it."""
        return None


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a selector chooses from.

    Args:
        training_set: the clean data.
        new_labels: shape (n,), int64: the label that each point would get; -1 where it cannot be flipped. It may be
            ``training_set.num_classes``: a class that the clean data do not have.
        notes: what a selector adds to the provenance of its choice: plain values that JSON can hold.

    Example:
        >>> from lightning_poison.poisons import ToClass
        >>> training_set = TrainingSet(torch.tensor([0, 2, 1]), num_classes=3)
        >>> candidates = Candidates.of(training_set, ToClass(1), seed=0)
        >>> candidates.new_labels, candidates.eligible
        (tensor([ 1,  1, -1]), tensor([ True,  True, False]))
    """

    training_set: TrainingSet
    new_labels: Tensor
    notes: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, training_set: TrainingSet, relabelling: Relabelling, seed: int) -> Candidates:
        """The points that a relabelling can change.

        Args:
            training_set: the clean data.
            relabelling: the rule.
            seed: of its draws.
        """
        index = relabelling.eligible(training_set).nonzero()[:, 0]
        new_labels = torch.full((training_set.num_points,), -1, dtype=torch.int64)
        new_labels[index] = relabelling.new_labels(training_set, index, seed)
        return cls(training_set, new_labels)

    @property
    def eligible(self) -> Tensor:
        """Which points can be flipped: shape (n,), bool; no other may be chosen."""
        return self.new_labels >= 0

    @property
    def labels(self) -> Tensor:
        """The clean labels, shape (n,), int64."""
        return self.training_set.labels

    @property
    def index(self) -> Tensor:
        """The points that can be flipped: shape (m,), int64, rising."""
        return self.eligible.nonzero()[:, 0]
