"""Exchange between the ranks of a run that does not hang when one of them fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch

from lightning_poison.errors import UserError

__all__ = ["from_all_ranks", "from_rank_zero", "shards_weights"]

T = TypeVar("T")

_PATIENCE = timedelta(days=7)


def from_all_ranks(trainer: Any, compute: Callable[[], T]) -> list[T]:
    """What ``compute`` returns on each rank, in their order; without several processes, on this one.

    The others wait for each rank in the exchange, so a user's error travels through it and is raised on all of them.

    Args:
        trainer: either Lightning's Trainer.
        compute: its result can be pickled.

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


def from_rank_zero(trainer: Any, compute: Callable[[], T]) -> T:
    """What ``compute`` returns on rank zero, on every rank; the others wait, however long it takes.

    Args:
        trainer: either Lightning's Trainer.
        compute: its result can be pickled.

    Raises:
        UserError: ``compute`` raised one.
        RuntimeError: (on the other ranks) ``compute`` raised something else.

    Example:
        >>> from types import SimpleNamespace
        >>> from_rank_zero(SimpleNamespace(world_size=1), lambda: "flips")
        'flips'
    """
    if trainer.world_size == 1:
        return compute()
    with _patient_broadcast(trainer) as broadcast:
        if trainer.is_global_zero:
            return _computed(compute, broadcast)
        result, mistake, failure = broadcast(None)
    if mistake is not None:
        raise UserError(mistake)
    if failure is not None:
        raise RuntimeError(f"rank 0 failed: {failure}")
    return result  # type: ignore[no-any-return]  # what was pickled comes out again


def shards_weights(trainer: Any) -> bool:
    """Whether no rank holds all weights of the model, so that nobody can run it alone."""
    return type(trainer.strategy).__name__.startswith(("FSDP", "DeepSpeed", "ModelParallel"))


def _computed(compute: Callable[[], T], broadcast: Callable[[Any], Any]) -> T:
    try:
        result = compute()
    except UserError as error:
        broadcast((None, str(error), None))
        raise
    except BaseException as error:
        broadcast((None, None, f"{type(error).__name__}: {error}"))
        raise
    broadcast((result, None, None))
    return result


@contextmanager
def _patient_broadcast(trainer: Any) -> Iterator[Callable[[Any], Any]]:
    """A broadcast from rank zero that waits for days: the run's own group gives up after minutes."""
    if not torch.distributed.is_initialized():
        yield trainer.strategy.broadcast
        return
    group: Any = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)

    def broadcast(message: Any) -> Any:
        box = [message]
        torch.distributed.broadcast_object_list(box, src=0, group=group)
        return box[0]

    try:
        yield broadcast
    finally:
        torch.distributed.destroy_process_group(group)
