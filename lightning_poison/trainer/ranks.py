"""Exchange between the ranks of a run: the one place where our code waits for other ranks.

Two things make a run hang, and both are seen to here.

*A rank that waits for the others alone.* Lightning computes what was logged when somebody first asks for it, and a
metric that the ranks share is synchronised then. At the end of a training epoch nobody has asked yet: a progress bar,
or anybody's callback that prints on rank zero, asks there on one rank only, which waits inside the metric until the
others ask too, at the latest when Lightning itself does after the hooks. An exchange of ours in between would be
waited for by the others: for ever. So every rank asks before an exchange, and after something was logged that the
ranks share (:func:`settle_logged_metrics`); any hook may then communicate. Lightning keeps what it has computed, so
that the values are those that it would have logged later.

*A rank that fails.* What is to be exchanged is computed inside the exchange, so that a failure is exchanged instead.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch

from lightning_poison.errors import UserError

__all__ = ["from_all_ranks", "from_rank_zero", "settle_logged_metrics", "shards_weights"]

T = TypeVar("T")

_PATIENCE = timedelta(days=7)
_groups: list[tuple[Any, Any]] = []  # the run's group, and ours beside it


def from_all_ranks(trainer: Any, compute: Callable[[], T]) -> list[T]:
    """What ``compute`` returns on each rank, in their order; without several processes, on this one.

    The others wait for each rank in the exchange, however long it takes.

    Args:
        trainer: either Lightning's Trainer.
        compute: its result can be pickled.

    Raises:
        UserError: ``compute`` raised one on some rank.
        RuntimeError: ``compute`` raised something else on another rank. What it raised on this one is raised as it is.

    Example:
        >>> from types import SimpleNamespace
        >>> from_all_ranks(SimpleNamespace(world_size=1), lambda: "rows")
        ['rows']
    """
    if trainer.world_size == 1 or not torch.distributed.is_initialized():
        return [compute()]
    settle_logged_metrics(trainer)
    rank, outcomes = torch.distributed.get_rank(), [_NOTHING] * torch.distributed.get_world_size()
    mine = _Attempt.of(compute, rank)
    torch.distributed.all_gather_object(outcomes, mine.outcome, group=_patient_group())
    if mine.error is not None:
        raise mine.error
    _raise_failures(outcomes)
    return [mine.result if outcome.rank == rank else outcome.result() for outcome in outcomes]


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
    settle_logged_metrics(trainer)
    if not trainer.is_global_zero:
        outcome = _broadcast(trainer, _NOTHING)
        _raise_failures([outcome])
        return outcome.result()  # type: ignore[no-any-return]  # what was pickled comes out again
    mine = _Attempt.of(compute, rank=0)
    _broadcast(trainer, mine.outcome)
    if mine.error is not None:
        raise mine.error
    return mine.result  # type: ignore[no-any-return]  # there was no error


def settle_logged_metrics(trainer: Any) -> None:
    """Let every rank compute and synchronise now what was logged so far, so that none has to do it alone.

    To be called on every rank, in any hook: by what waits for the other ranks without :func:`from_all_ranks`, and after
    ``log(..., sync_dist=True)``. Values that have been computed stay as they are until something is logged anew.
    """
    if trainer.world_size == 1 or not torch.distributed.is_initialized():
        return
    # Outside a fit the metrics were updated in inference mode, and could not be changed in place outside it.
    evaluates = trainer.state.fn != "fit" and (trainer.validating or trainer.testing)
    loop = (trainer.validate_loop if trainer.validating else trainer.test_loop) if evaluates else None
    with torch.inference_mode() if getattr(loop, "inference_mode", False) else nullcontext():
        _ = trainer.progress_bar_metrics  # what a bar asks for; asking for any of them computes all


def shards_weights(trainer: Any) -> bool:
    """Whether no rank holds all weights of the model, so that nobody can run it alone."""
    return type(trainer.strategy).__name__.startswith(("FSDP", "DeepSpeed", "ModelParallel"))


@dataclass(frozen=True)
class _Outcome:
    """What travels of one rank: the pickled result, or what went wrong."""

    rank: int = 0
    content: bytes = b""
    mistake: str | None = None
    failure: str | None = None

    def result(self) -> Any:
        return pickle.loads(self.content)  # noqa: S301  # of this run's own ranks


@dataclass(frozen=True)
class _Attempt:
    """What came of a computation on this rank."""

    outcome: _Outcome
    result: Any = None
    error: BaseException | None = None

    @classmethod
    def of(cls, compute: Callable[[], Any], rank: int) -> _Attempt:
        try:
            result = compute()
            return cls(_Outcome(rank, pickle.dumps(result)), result)
        except UserError as error:
            return cls(_Outcome(rank, mistake=str(error)), error=error)
        except BaseException as error:  # noqa: BLE001  # raised again once the others know: they wait for this rank
            return cls(_Outcome(rank, failure=f"{type(error).__name__}: {error}"), error=error)


_NOTHING = _Outcome()


def _raise_failures(outcomes: Sequence[_Outcome]) -> None:
    """Raise what went wrong on some rank, a user's mistake first."""
    for outcome in outcomes:
        if outcome.mistake is not None:
            raise UserError(outcome.mistake)
    for outcome in outcomes:
        if outcome.failure is not None:
            raise RuntimeError(f"rank {outcome.rank} failed: {outcome.failure}")


def _broadcast(trainer: Any, outcome: _Outcome) -> _Outcome:
    """Rank zero's outcome."""
    if not torch.distributed.is_initialized():
        return trainer.strategy.broadcast(outcome)  # type: ignore[no-any-return]  # what is sent comes out again
    box = [outcome]
    torch.distributed.broadcast_object_list(box, src=0, group=_patient_group())
    return box[0]


def _patient_group() -> Any:
    """All ranks, waiting for days: the run's own group gives up after minutes."""
    world = torch.distributed.group.WORLD
    if not _groups or _groups[0][0] is not world:
        _groups[:] = [(world, torch.distributed.new_group(backend="gloo", timeout=_PATIENCE))]
    return _groups[0][1]
