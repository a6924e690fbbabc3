"""Points drawn at random: the baseline of every other selector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer, check_number
from lightning_poison.functional.random_streams import generator
from lightning_poison.poisons.base import Selector
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["RandomPoints"]

_DEFAULT_PER_CLASS = 10


@dataclass(frozen=True)
class RandomPoints(Selector):
    """Draws points uniformly without replacement.

    At most one of ``count``, ``per_class`` and ``fraction`` is given; without any it is ``per_class=10``. With one
    seed a smaller budget draws a part of what a larger one draws, and per class the draw does not depend on the other
    classes. Points that the relabelling cannot change (those of class c under ``ToClass(c)``) are not drawn.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to draw from; None: every class.

    Raises:
        UserError: more than one budget is given, or one is out of range.

    Example:
        >>> training_set = TrainingSet(torch.arange(100) % 10, num_classes=10)
        >>> index = RandomPoints(per_class=2, classes=[0, 7]).select(training_set, training_set.labels >= 0, seed=0)
        >>> training_set.labels[index].bincount().tolist()
        [2, 0, 0, 0, 0, 0, 0, 2]
    """

    count: int | None = None
    per_class: int | None = None
    fraction: float | None = None
    classes: list[int] | None = None

    def __post_init__(self) -> None:
        budgets = {"count": self.count, "per_class": self.per_class, "fraction": self.fraction}
        given = {name: value for name, value in budgets.items() if value is not None}
        if len(given) > 1:
            got = ", ".join(f"{name}={value}" for name, value in given.items())
            raise UserError(
                f"RandomPoints takes one of count, per_class and fraction, got {got}; set the others to null"
            )
        if not given:
            object.__setattr__(self, "per_class", _DEFAULT_PER_CLASS)
        for name in ("count", "per_class"):
            if given.get(name) is not None:
                check_integer(name, getattr(self, name), minimum=0)
        if self.fraction is not None:
            check_number("fraction", self.fraction, minimum=0, maximum=1, remedy="for 5 % write 0.05")
        self._check_classes()

    def select(self, training_set: TrainingSet, eligible: Tensor, seed: int) -> Tensor:
        """Draw the points.

        Raises:
            UserError: a class does not exist or holds fewer points than the budget; the message names it and its size.
        """
        classes = self._existing_classes(training_set)
        candidates = eligible & torch.isin(training_set.labels, torch.tensor(classes))
        if self.per_class is not None:
            drawn = [self._of_class(training_set, candidates, label, seed) for label in classes]
            return torch.cat([torch.zeros(0, dtype=torch.int64), *drawn]).sort().values
        members = candidates.nonzero().squeeze(1)
        size = members.numel()
        budget = self.count if self.count is not None else int((self.fraction or 0.0) * size + 0.5)
        if budget > size:
            among = "the training set" if self.classes is None else f"classes {classes}"
            raise UserError(f"count must be at most the {size} points of {among} that can be flipped, got {budget}")
        if budget == 0 and self.fraction:
            raise UserError(f"fraction {self.fraction} of {size} points is less than one point; use a larger fraction")
        return _draw(members, budget, generator(seed, "RandomPoints")).sort().values

    def _of_class(self, training_set: TrainingSet, candidates: Tensor, label: int, seed: int) -> Tensor:
        of_class = training_set.labels == label
        members = (candidates & of_class).nonzero().squeeze(1)
        budget = self.per_class or 0
        if members.numel() == 0 and of_class.any():
            if self.classes is None:
                return members  # the target of ToClass: nothing there can be flipped
            raise UserError(f"class {label} cannot be flipped by this relabelling; take it out of classes")
        if budget > members.numel():
            raise UserError(
                f"per_class must be at most the size of every class, got {budget} and class {label} has "
                f"{members.numel()} points; lower per_class or name larger classes"
            )
        return _draw(members, budget, generator(seed, "RandomPoints", label))

    def _existing_classes(self, training_set: TrainingSet) -> list[int]:
        if self.classes is None:
            return list(range(training_set.num_classes))
        for label in self.classes:
            if label >= training_set.num_classes:
                raise UserError(
                    f"classes must lie in [0, {training_set.num_classes - 1}], got {label}; the data has "
                    f"{training_set.num_classes} classes"
                )
        return sorted(self.classes)

    def _check_classes(self) -> None:
        if self.classes is None:
            return
        if not self.classes:
            raise UserError("classes must name at least one class, got an empty list; null means every class")
        for label in self.classes:
            check_integer("classes", label, minimum=0)
        if len(set(self.classes)) < len(self.classes):
            raise UserError(f"classes must differ, got {list(self.classes)}")


def _draw(members: Tensor, budget: int, stream: torch.Generator) -> Tensor:
    return members[torch.randperm(members.numel(), generator=stream)[:budget]]
