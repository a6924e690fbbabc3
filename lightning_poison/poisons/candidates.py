"""The points that a relabelling can change, and to what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_poison.poisons.relabellings import Relabelling
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["Candidates"]


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
