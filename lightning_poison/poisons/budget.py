"""How many points are flipped, and of which classes: what every selector with a budget has in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import as_list, check_integer, check_integer_field, check_number_field
from lightning_poison.poisons.base import Candidates, Selector

__all__ = [
    "BudgetedSelector",
    "ScoreSelector",
    "Share",
    "check_classes",
    "existing_classes",
    "remark_on_classes",
    "rising",
]

_DEFAULT_PER_CLASS = 10
_SHOWN = 10  # numbers that a message lists


# --- selectors --------------------------------------------------------------------------------------------------------


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


class ScoreSelector(BudgetedSelector):
    """Takes the points of highest score in each share; of equal scores those that come first in the data.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
    """

    @abstractmethod
    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        """How much a flip of each point is worth.

        Args:
            candidates: all that can be flipped.
            index: shape (m,), int64, rising: the points to score.
            seed: for rules that draw.

        Returns:
            shape (m,), float; no NaN.
        """

    def choose(self, candidates: Candidates, shares: list[Share], seed: int) -> list[Tensor]:
        """Score all points once and take the best of each share."""
        index = rising(share.members for share in shares)
        if not any(share.budget for share in shares):
            return [share.members[:0] for share in shares]
        scores = self.scores(candidates, index, seed).double()
        if scores.isnan().any():
            bad = int(scores.isnan().sum())
            raise UserError(
                f"{type(self).__name__} gave {bad} of {len(index)} points no score (NaN); "
                "check that the inputs are finite and that the network does not answer NaN"
            )
        chosen = []
        for share in shares:
            own = scores[torch.searchsorted(index, share.members)]
            order = torch.argsort(own, descending=True, stable=True)
            chosen.append(share.members[order[: share.budget]])
        return chosen


def rising(parts: Iterable[Tensor]) -> Tensor:
    """All numbers of several vectors, smallest first.

    Args:
        parts: each of shape (m,), int64.

    Example:
        >>> rising([torch.tensor([5, 2]), torch.tensor([3])])
        tensor([2, 3, 5])
    """
    return torch.cat([torch.zeros(0, dtype=torch.int64), *parts]).sort().values


# --- classes ----------------------------------------------------------------------------------------------------------


def check_classes(classes: list[int] | None, name: str = "classes") -> list[int] | None:
    """Return ``classes`` as a list of ints if they are different numbers, or None for every class.

    Args:
        classes: the classes, in any sequence.
        name: what to call them in a message.

    Raises:
        UserError: they are not, or there is none.

    Example:
        >>> check_classes([0, 7])
        [0, 7]
    """
    if classes is None:
        return None
    given = as_list(classes)
    if given is None:
        raise UserError(f"{name} must be a list such as [0, 1], got {classes!r}; null means every class")
    if not given:
        raise UserError(f"{name} must name at least one class, got an empty list; null means every class")
    checked = [check_integer(name, label, minimum=0) for label in given]
    if len(set(checked)) < len(checked):
        raise UserError(f"{name} must differ, got {checked}")
    return checked


def existing_classes(classes: list[int] | None, num_classes: int) -> list[int]:
    """The classes that are meant, rising.

    Args:
        classes: as checked by :func:`check_classes`.
        num_classes: K of the data.

    Raises:
        UserError: the data have no such class.

    Example:
        >>> existing_classes(None, 3)
        [0, 1, 2]
    """
    if classes is None:
        return list(range(num_classes))
    for label in classes:
        if label >= num_classes:
            raise UserError(
                f"classes must lie in [0, {num_classes - 1}], got {label}; the data has {num_classes} classes"
            )
    return sorted(classes)


def remark_on_classes(labels: Tensor, new_labels: Tensor, num_classes: int) -> str | None:
    """What is odd about the numbers of the classes, in a sentence; None where nothing is.

    Labels may count from 1, or leave numbers out; flips by number then lead to classes that no training point has.

    Args:
        labels: shape (n,), int64: of the training set.
        new_labels: shape (b,), int64: those of the flips. A class K that is new is meant to be.
        num_classes: K of the clean data.

    Example:
        >>> remark_on_classes(torch.tensor([0, 1, 2]), torch.tensor([3]), 3) is None
        True
        >>> print(remark_on_classes(torch.tensor([0, 5, 7]), torch.tensor([1, 6, 0]), 8))
        flips lead to classes 1 and 6, which no training point has: the labels are 0, 5, 7; number the classes \
        0 to K - 1 without gaps, or flip to a class that is there (ToClass)
    """
    present = torch.unique(labels).tolist()
    empty = sorted({label for label in torch.unique(new_labels).tolist() if label < num_classes} - set(present))
    lead = f"flips lead to class{'es' * (len(empty) > 1)} {_listed(empty, ' and ')}, which no training point has"
    if len(present) > 1 and present == list(range(1, len(present) + 1)) and num_classes == len(present) + 1:
        count = f"the labels seem to count from 1: they are 1 to {len(present)}, none is 0, of {num_classes} classes"
        return f"{count}; {f'{lead}; ' if empty else ''}number the classes from 0, as labels - 1 does"
    if not empty:
        return None
    remedy = "number the classes 0 to K - 1 without gaps, or flip to a class that is there (ToClass)"
    return f"{lead}: the labels are {_listed(present, ', ')}; {remedy}"


def _listed(numbers: list[int], last: str) -> str:
    """Some numbers as text.

    Example:
        >>> _listed([1, 2, 3], " and "), _listed(list(range(12)), ", ")
        ('1, 2 and 3', '0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...')
    """
    if len(numbers) > _SHOWN:
        return f"{', '.join(map(str, numbers[:_SHOWN]))}, ..."
    first, final = ", ".join(map(str, numbers[:-1])), "".join(map(str, numbers[-1:]))
    return f"{first}{last}{final}" if first else final
