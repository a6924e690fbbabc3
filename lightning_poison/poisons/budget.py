"""How many points are flipped, and of which classes: what every selector with a budget has in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer_field, check_number_field
from lightning_poison.poisons.base import Selector
from lightning_poison.poisons.candidates import Candidates
from lightning_poison.poisons.classes import check_classes, existing_classes

__all__ = ["BudgetedSelector", "Share", "rising"]

_DEFAULT_PER_CLASS = 10


@dataclass(frozen=True, eq=False)
class Share:
    """A part of the budget, and the points that it is for.

    Args:
        members: shape (m,), int64, rising: the points to choose from.
        budget: how many of them, at most m.
        label: their class; None: points of several classes share the budget.
    """

    members: Tensor
    budget: int
    label: int | None


def rising(parts: Iterable[Tensor]) -> Tensor:
    """All numbers of several vectors, smallest first.

    Args:
        parts: each of shape (m,), int64.

    Example:
        >>> rising([torch.tensor([5, 2]), torch.tensor([3])])
        tensor([2, 3, 5])
    """
    return torch.cat([torch.zeros(0, dtype=torch.int64), *parts]).sort().values


@dataclass(frozen=True)
class BudgetedSelector(Selector):
    """Chooses a given number of points.

    At most one of ``count``, ``per_class`` and ``fraction`` is given; without any it is ``per_class=10``. Points that
    the relabelling cannot change (those of class c under ``ToClass(c)``) are not chosen.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.

    Raises:
        UserError: more than one budget is given, or one is out of range.
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
                f"{type(self).__name__} takes one of count, per_class and fraction, got {got}; set the others to null"
            )
        if not given:
            object.__setattr__(self, "per_class", _DEFAULT_PER_CLASS)
        for name in ("count", "per_class"):
            if given.get(name) is not None:
                check_integer_field(self, name, minimum=0)
        if self.fraction is not None:
            check_number_field(self, "fraction", minimum=0, maximum=1, remedy="for 5 % write 0.05")
        object.__setattr__(self, "classes", check_classes(self.classes))

    def select(self, candidates: Candidates, seed: int) -> Tensor:
        """Choose the points.

        Raises:
            UserError: a class does not exist or holds fewer points than the budget; the message names it and its size.
        """
        shares = self.shares(candidates)
        return rising(self.choose(candidates, shares, seed))

    def check(self, candidates: Candidates) -> None:
        """Refuse a budget that the data cannot fill.

        Raises:
            UserError: a class does not exist or holds fewer points than the budget; the message names it and its size.
        """
        self.shares(candidates)

    @abstractmethod
    def choose(self, candidates: Candidates, shares: list[Share], seed: int) -> list[Tensor]:
        """The points of each share.

        Args:
            candidates: all that can be flipped.
            shares: what to choose from, and how many.
            seed: for rules that draw.

        Returns:
            for each share, shape (``budget``,), int64: distinct ``members``, in any order.
        """

    def shares(self, candidates: Candidates) -> list[Share]:
        """The budget, class by class, or as one share where it is given for all classes together.

        Raises:
            UserError: a class does not exist or holds fewer points than the budget.
        """
        classes = existing_classes(self.classes, candidates.training_set.num_classes)
        if self.per_class is not None:
            return [share for label in classes if (share := self._of_class(candidates, label)) is not None]
        members = (candidates.eligible & torch.isin(candidates.labels, torch.tensor(classes))).nonzero()[:, 0]
        size = members.numel()
        budget = self.count if self.count is not None else int((self.fraction or 0.0) * size + 0.5)
        if budget > size:
            among = "the training set" if self.classes is None else f"classes {classes}"
            raise UserError(f"count must be at most the {size} points of {among} that can be flipped, got {budget}")
        if size == 0 and self.fraction:
            raise UserError("no point can be flipped by this relabelling; name other classes, or another relabelling")
        if budget == 0 and self.fraction:
            raise UserError(f"fraction {self.fraction} of {size} points is less than one point; use a larger fraction")
        return [Share(members, budget, None)]

    def _of_class(self, candidates: Candidates, label: int) -> Share | None:
        of_class = candidates.labels == label
        members = (candidates.eligible & of_class).nonzero()[:, 0]
        budget = self.per_class or 0
        if members.numel() == 0 and of_class.any():
            if self.classes is None:
                return None  # the target of ToClass: nothing there can be flipped
            raise UserError(f"class {label} cannot be flipped by this relabelling; take it out of classes")
        if budget > members.numel():
            raise UserError(
                f"per_class must be at most the size of every class, got {budget} and class {label} has "
                f"{members.numel()} points; lower per_class or name larger classes"
            )
        return Share(members, budget, label)
