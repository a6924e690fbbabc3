"""How many classes the victim must tell apart: as many as the data have, one more with a new class."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import declared_classes
from lightning_poison.poisons import Poison

__all__ = ["check_known", "num_classes_for"]


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
    clean = declared_classes(data)
    if clean is None:
        return by_hand
    needed = clean if poison is None else poison.num_classes_after(clean)
    if by_hand is not None and by_hand != needed:
        cause = f"the data have {clean} classes" + (" and the poison adds a new one" if needed > clean else "")
        raise UserError(f"model.num_classes must be {needed} ({cause}), got {by_hand}; leave it out, it is filled in")
    return needed


def check_known(num_classes: int | None, data: Any, class_path: str) -> int | None:
    """Refuse an unknown number of classes where the model cannot be made without.

    Args:
        num_classes: None: neither the data nor the user say.
        data: the data module.
        class_path: of the model.

    Raises:
        UserError: the model's class needs the number.
    """
    if num_classes is not None:
        return num_classes
    module, _, name = class_path.rpartition(".")
    parameter = inspect.signature(getattr(importlib.import_module(module), name)).parameters.get("num_classes")
    if parameter is not None and parameter.default is inspect.Parameter.empty:
        raise UserError(
            f"model.num_classes is needed: {type(data).__name__} has no attribute num_classes to fill it in from; "
            "give it one, or set --model.num_classes=K"
        )
    return None
