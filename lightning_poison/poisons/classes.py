"""The classes that a strategy is for, and those that its flips lead to."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import as_list, check_integer

__all__ = ["check_classes", "existing_classes", "remark_on_classes"]

_SHOWN = 10


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
