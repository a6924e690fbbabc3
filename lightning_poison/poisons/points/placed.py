"""Mislabelled points beside the training set, at or near the means of the classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import (
    as_list,
    as_number,
    check_integer_field,
    check_kind,
    check_number,
    check_number_field,
)
from lightning_poison.functional.random_streams import generator
from lightning_poison.poisons.budget import check_classes, existing_classes
from lightning_poison.poisons.points.poison_points import PointPoison, PoisonPoints
from lightning_poison.poisons.relabellings import NextClass, Relabelling
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["ClassMeans", "GivenMeans", "PlacedPoisons", "TrainingMeans"]


# --- class means ------------------------------------------------------------------------------------------------------


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


# --- placed points ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlacedPoisons(PointPoison):
    """Adds mislabelled points at l2 distance r from the class means, uniformly on the sphere (thesis, section 4.1).

    Each point's direction depends on the seed, its class and its number alone: another distance places the points
    along the same rays, and a larger budget keeps the points of a smaller one. Points are not clipped to [0, 1], which
    would change their distance.

    Args:
        distance: r, in the units of the inputs; 0 places them on the means.
        per_class: how many points around each mean.
        classes: around whose means; None: every class that the relabelling can change.
        relabel: their labels, given the class around whose mean they lie.
        means: where the means are.

    Raises:
        UserError: an argument is out of range; (when points are placed) a class does not exist or has no mean.

    Example:
        >>> data = [(torch.full((3,), float(label)), label) for label in (0, 1)]
        >>> training_set = TrainingSet(torch.tensor([0, 1]), num_classes=2, dataset=data)
        >>> points = PlacedPoisons(distance=0.5, per_class=2).craft(training_set, seed=0)
        >>> points.old_label.tolist(), points.new_label.tolist()
        ([0, 0, 1, 1], [1, 1, 0, 0])
        >>> bool(torch.allclose((points.inputs[0]).norm(), torch.tensor(0.5)))
        True
    """

    distance: float
    per_class: int = 2
    classes: list[int] | None = None
    relabel: Relabelling = field(default_factory=NextClass)
    means: ClassMeans = field(default_factory=TrainingMeans)

    def __post_init__(self) -> None:
        check_kind("relabel", self.relabel, Relabelling, "NextClass()")
        if not isinstance(self.means, ClassMeans):
            raise UserError(f"means must be TrainingMeans() or GivenMeans([[...], ...]), got {self.means!r}")
        check_number_field(self, "distance", minimum=0, maximum=1e30)  # inputs are float32
        check_integer_field(self, "per_class", minimum=0)
        object.__setattr__(self, "classes", check_classes(self.classes))

    def num_classes_after(self, num_classes: int) -> int:
        """Number of classes of the poisoned data."""
        return self.relabel.num_classes_after(num_classes)

    def check(self, training_set: TrainingSet, seed: int) -> None:
        """Refuse classes that do not exist.

        Raises:
            UserError: one does not, or the relabelling cannot change it.
        """
        super().check(training_set, seed)
        self._chosen_classes(training_set)

    def craft(self, training_set: TrainingSet, seed: int) -> PoisonPoints:
        """Place the points.

        Raises:
            UserError: a class does not exist or has no mean.
        """
        classes = self._chosen_classes(training_set)
        inputs = []
        for label in classes:
            mean = self.means.mean(training_set, label)
            rays = [_direction(mean.shape, seed, label, number) for number in range(self.per_class)]
            inputs += [mean + self.distance * ray for ray in rays]
        old = torch.tensor(classes, dtype=torch.int64).repeat_interleave(self.per_class)
        around = TrainingSet(old, training_set.num_classes)
        return PoisonPoints(
            index=torch.full_like(old, -1),
            inputs=torch.stack(inputs).float() if inputs else training_set.inputs[:0],
            old_label=old,
            new_label=self.relabel.new_labels(around, torch.arange(len(old)), seed),
            distance=torch.full((len(old),), float(self.distance)),
            provenance=self.provenance(training_set, seed, "l2"),
        ).check(training_set, self.num_classes_after(training_set.num_classes))

    def _chosen_classes(self, training_set: TrainingSet) -> list[int]:
        every = torch.arange(training_set.num_classes)
        eligible = self.relabel.eligible(TrainingSet(every, training_set.num_classes))
        if self.classes is None:
            return every[eligible].tolist()
        classes = existing_classes(self.classes, len(every))
        for label in classes:
            if not eligible[label]:
                raise UserError(f"class {label} cannot be mislabelled by this relabelling; take it out of classes")
        return classes


def _direction(shape: torch.Size, seed: int, label: int, number: int) -> Tensor:
    """A unit vector, uniform on the sphere: a Gaussian one, scaled."""
    drawn = torch.randn(shape, dtype=torch.float64, generator=generator(seed, "PlacedPoisons", label, number))
    ray: Tensor = drawn / drawn.norm()
    return ray
