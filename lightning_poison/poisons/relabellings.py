"""Which label a selected point gets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer_field
from lightning_poison.functional.random_streams import generator
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["NewClass", "NextClass", "RandomOther", "Relabelling", "ToClass"]


class Relabelling(ABC):
    """A rule that says which label a selected point gets."""

    def num_classes_after(self, num_classes: int) -> int:
        """Number of classes once points are relabelled."""
        return num_classes

    def eligible(self, training_set: TrainingSet) -> Tensor:
        """Which points this rule can give another label: shape (n,), bool."""
        return training_set.labels >= 0

    @abstractmethod
    def new_labels(self, training_set: TrainingSet, index: Tensor, seed: int) -> Tensor:
        """The new label of each selected point, never its old one.

        Args:
            training_set: the clean data.
            index: shape (b,), int64: the selected points, in increasing order.
            seed: for rules that draw.

        Returns:
            shape (b,), int64.
        """


@dataclass(frozen=True)
class NextClass(Relabelling):
    """Label c becomes c + 1, and the last label becomes 0, whether or not a training point has that class.

    A list that leads to a class without a point says so (``remark`` in its provenance).

    Raises:
        UserError: there is only one class (when flips are drawn).

    Example:
        >>> training_set = TrainingSet(torch.tensor([0, 1, 2]), num_classes=3)
        >>> NextClass().new_labels(training_set, torch.arange(3), seed=0)
        tensor([1, 2, 0])
    """

    def new_labels(self, training_set: TrainingSet, index: Tensor, seed: int) -> Tensor:  # noqa: ARG002  # the signature is shared
        """Return (label + 1) mod K."""
        _check_two_classes(training_set.num_classes)
        return (training_set.labels[index] + 1) % training_set.num_classes


@dataclass(frozen=True)
class NewClass(Relabelling):
    """Every selected point goes to one class that the clean data does not have: label K of K + 1.

    Example:
        >>> training_set = TrainingSet(torch.tensor([0, 1, 2]), num_classes=3)
        >>> NewClass().new_labels(training_set, torch.arange(3), seed=0)
        tensor([3, 3, 3])
    """

    def num_classes_after(self, num_classes: int) -> int:
        """Return K + 1."""
        return num_classes + 1

    def new_labels(self, training_set: TrainingSet, index: Tensor, seed: int) -> Tensor:  # noqa: ARG002  # the signature is shared
        """Return K for every point."""
        return torch.full_like(index, training_set.num_classes)


@dataclass(frozen=True)
class ToClass(Relabelling):
    """Every selected point goes to one given class; points of that class are never selected.

    Args:
        label: the class, in [0, K - 1].

    Raises:
        UserError: the label is negative, or not below K (when flips are drawn).

    Example:
        >>> training_set = TrainingSet(torch.tensor([0, 1, 2]), num_classes=3)
        >>> ToClass(1).eligible(training_set)
        tensor([ True, False,  True])
    """

    label: int

    def __post_init__(self) -> None:
        check_integer_field(self, "label", minimum=0)

    def num_classes_after(self, num_classes: int) -> int:
        """Return K, after checking that the label is one of the K."""
        if self.label >= num_classes:
            raise UserError(
                f"ToClass.label must lie in [0, {num_classes - 1}], got {self.label}; NewClass adds a class to the data"
            )
        return num_classes

    def eligible(self, training_set: TrainingSet) -> Tensor:
        """Every point of another class."""
        return training_set.labels != self.label

    def new_labels(self, training_set: TrainingSet, index: Tensor, seed: int) -> Tensor:  # noqa: ARG002  # the signature is shared
        """Return the label for every point."""
        self.num_classes_after(training_set.num_classes)
        return torch.full_like(index, self.label)


@dataclass(frozen=True)
class RandomOther(Relabelling):
    """Each selected point goes to one of the other K - 1 classes, all equally likely, those without a point too.

    A point's draw depends on the seed and its index alone, not on which other points are selected.

    Raises:
        UserError: there is only one class (when flips are drawn).

    Example:
        >>> training_set = TrainingSet(torch.tensor([0, 1, 0]), num_classes=2)
        >>> RandomOther().new_labels(training_set, torch.arange(3), seed=0)
        tensor([1, 0, 1])
    """

    def new_labels(self, training_set: TrainingSet, index: Tensor, seed: int) -> Tensor:
        """Return label + s mod K with s uniform in 1, ..., K - 1."""
        _check_two_classes(training_set.num_classes)
        stream = generator(seed, "RandomOther")
        steps = torch.randint(1, training_set.num_classes, (training_set.num_points,), generator=stream)
        return (training_set.labels[index] + steps[index]) % training_set.num_classes


def _check_two_classes(num_classes: int) -> None:
    if num_classes < 2:
        raise UserError("the data has a single class, so no label can be flipped to another; use NewClass")
