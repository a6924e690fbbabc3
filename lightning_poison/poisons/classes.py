"""The classes that a strategy is for."""

from __future__ import annotations

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import as_list, check_integer

__all__ = ["check_classes", "existing_classes"]


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
