"""Exchange between ranks that does not hang when one of them fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from lightning_poison.errors import UserError

__all__ = ["from_all_ranks"]

T = TypeVar("T")


def from_all_ranks(trainer: Any, compute: Callable[[], T]) -> list[T]:
    """What ``compute`` returns on each rank, in their order; without several processes, on this one.

    The others wait for each rank in the exchange, so a user's error travels through it and is raised on all of them.

    Raises:
        UserError: ``compute`` raised one on some rank.
    """
    if trainer.world_size == 1 or not torch.distributed.is_initialized():
        return [compute()]
    mine: tuple[T | None, str | None]
    try:
        mine = (compute(), None)
    except UserError as error:
        mine = (None, str(error))
    shares: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, mine)
    for _, message in shares:
        if message is not None:
            raise UserError(message)
    return [share for share, _ in shares]
