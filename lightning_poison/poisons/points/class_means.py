"""Where the middle of a class is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import as_list, as_number, check_number
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["ClassMeans", "GivenMeans", "TrainingMeans"]


class ClassMeans(ABC):
    """A rule that says where the mean of a class is; a generator of data knows it, others estimate it."""

    @abstractmethod
    def mean(self, training_set: TrainingSet, label: int) -> Tensor:
        """The mean of one class, in the shape of an input, float64.

        Raises:
            UserError: it is not known.
        """


@dataclass(frozen=True)
class TrainingMeans(ClassMeans):
    """The mean of the class's training inputs.

    Example:
        >>> data = [(torch.tensor([0.0, 1.0]), 0), (torch.tensor([1.0, 0.0]), 0)]
        >>> TrainingMeans().mean(TrainingSet(torch.tensor([0, 0]), 1, dataset=data), 0).tolist()
        [0.5, 0.5]
    """

    def mean(self, training_set: TrainingSet, label: int) -> Tensor:
        """The mean of the training inputs with this label."""
        of_class = training_set.inputs[training_set.labels == label]
        if not len(of_class):
            raise UserError(f"class {label} has no training points, so no mean; take it out of classes")
        return of_class.double().mean(dim=0)


@dataclass(frozen=True)
class GivenMeans(ClassMeans):
    """Means that the user knows, as those of a Gaussian mixture.

    Args:
        values: for each class its mean, flat.

    Raises:
        UserError: they are no lists of finite numbers; (when a mean is asked for) it is not there or of another size.

    Example:
        >>> data = [(torch.zeros(2), 0)]
        >>> GivenMeans([[-10.0, -10.0], [10.0, 10.0]]).mean(TrainingSet(torch.tensor([0]), 2, dataset=data), 1).tolist()
        [10.0, 10.0]
    """

    values: list[list[float]]

    def __post_init__(self) -> None:
        remedy = "for two classes in the plane write [[0, 0], [1, 1]]"
        means = as_list(self.values)
        if means is None:
            raise UserError(
                f"GivenMeans.values must hold a list of numbers for each class, got {self.values!r}; {remedy}"
            )
        for label, mean in enumerate(means):
            numbers = as_list(mean)
            if numbers is None:
                raise UserError(
                    f"GivenMeans.values must hold a list of numbers for class {label}, got {mean!r}; {remedy}"
                )
            for number in numbers:
                check_number(f"GivenMeans.values of class {label}", number)
            means[label] = [as_number(number) for number in numbers]
        object.__setattr__(self, "values", means)

    def mean(self, training_set: TrainingSet, label: int) -> Tensor:
        """The given mean, in the shape of an input."""
        shape = training_set.inputs.shape[1:]
        if label >= len(self.values) or len(self.values[label]) != shape.numel():
            got = len(self.values[label]) if label < len(self.values) else "none"
            raise UserError(
                f"GivenMeans.values must hold {shape.numel()} numbers for class {label}, as an input has, got {got}"
            )
        return torch.tensor(self.values[label], dtype=torch.float64).reshape(shape)
