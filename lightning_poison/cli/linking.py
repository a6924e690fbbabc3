"""How many classes the victim must tell apart: as many as the data have, one more with a new class."""

from __future__ import annotations

from typing import Any

from lightning_poison.errors import UserError
from lightning_poison.poisons import Poison

__all__ = ["num_classes_for"]


def num_classes_for(data: Any, poison: Poison | None, by_hand: int | None) -> int | None:
    """The victim's ``num_classes``.

    Args:
        data: the data module; its ``num_classes`` counts if it has one.
        poison: what will be done to its labels.
        by_hand: what the user set, if anything.

    Raises:
        UserError: the user's number contradicts the data.

    Example:
        >>> num_classes_for(None, None, by_hand=3)
        3
    """
    clean = getattr(data, "num_classes", None)
    if clean is None:
        return by_hand
    needed = clean if poison is None else poison.num_classes_after(clean)
    if by_hand is not None and by_hand != needed:
        cause = f"the data have {clean} classes" + (" and the poison adds a new one" if needed > clean else "")
        raise UserError(f"model.num_classes must be {needed} ({cause}), got {by_hand}; leave it out, it is filled in")
    return needed
