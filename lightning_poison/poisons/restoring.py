"""Lists of poisons out of checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_poison.poisons.flip_list import FlipList
from lightning_poison.poisons.points import PoisonPoints
from lightning_poison.poisons.poison_list import PoisonList

__all__ = ["restored_poisons"]


def restored_poisons(state: Mapping[str, Any]) -> PoisonList:
    """The list whose ``state_dict`` this is.

    Example:
        >>> len(restored_poisons(FlipList.empty().state_dict()))
        0
    """
    kind = PoisonPoints if "inputs" in state else FlipList
    return kind.from_state_dict(state)
