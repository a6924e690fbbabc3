"""A shuffled order that depends on nothing but the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from lightning_poison.functional.random_streams import generator

__all__ = ["EpochShuffle"]


class EpochShuffle(DistributedSampler[Any]):
    """Shuffles by (seed, epoch), so that a resumed run sees the order of an uninterrupted one.

    The points of an epoch are dealt to the ranks in turn: all ranks together see the order that a single process
    would see, and where the number of points is no multiple of the number of ranks the first ones are repeated, as
    ``DistributedSampler`` does. Lightning leaves a ``DistributedSampler`` as it is. Points that are added to the data
    are shuffled in: the others keep the order that they have without them, so that a clean twin sees the same.

    Args:
        length: number of points, without added ones.
        seed: of the order.
        trainer: gives the epoch whenever iteration begins; None: the epoch comes from ``set_epoch``.
        num_replicas: number of ranks.
        rank: this one.
        added: number of points that stand behind the others.

    Example:
        >>> whole = list(EpochShuffle(5, seed=0))
        >>> halves = [list(EpochShuffle(5, seed=0, num_replicas=2, rank=rank)) for rank in range(2)]
        >>> halves[0][:3] == whole[::2] and halves[1][:2] == whole[1::2]
        True
    """

    def __init__(
        self, length: int, seed: int, trainer: Any = None, num_replicas: int = 1, rank: int = 0, added: int = 0
    ) -> None:
        self.added = added
        # The base only takes the length of what it calls a data set, and a range has one.
        super().__init__(range(length + added), num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed)  # type: ignore[arg-type]  # see above
        self.trainer = trainer

    def __iter__(self) -> Iterator[int]:
        """This rank's points in the order of the current epoch."""
        epoch = self.epoch if self.trainer is None else _epoch_to_come(self.trainer)
        count = len(self.dataset) - self.added  # type: ignore[arg-type]  # a range
        order = torch.randperm(count, generator=generator(self.seed, "shuffle", epoch))
        order = self._with_added(order, epoch)
        padded = torch.cat([order, order.repeat(-(-self.total_size // max(len(order), 1)))])[: self.total_size]
        return iter(padded[self.rank :: self.num_replicas].tolist())

    def _with_added(self, order: Tensor, epoch: int) -> Tensor:
        if not self.added:
            return order
        stream = generator(self.seed, "shuffle added", epoch)
        total = len(order) + self.added
        places = torch.zeros(total, dtype=torch.bool)
        places[torch.randperm(total, generator=stream)[: self.added]] = True
        mixed = torch.empty(total, dtype=torch.int64)
        mixed[~places] = order
        mixed[places] = len(order) + torch.randperm(self.added, generator=stream)
        return mixed

    def __getstate__(self) -> dict[str, Any]:
        """Leave the Trainer behind, with its epoch kept: the sampler may travel to another process."""
        state = self.__dict__.copy()
        if self.trainer is not None:
            state |= {"trainer": None, "epoch": _epoch_to_come(self.trainer)}
        return state


def _epoch_to_come(trainer: Any) -> int:
    """The epoch that is, or will be, trained with an iterator that is made now.

    A Trainer that goes on from a checkpoint makes its first iterator before it has counted the epoch whose end the
    checkpoint holds; workers fetch the order at once.
    """
    loop = getattr(trainer, "fit_loop", None)
    if loop is None or not (loop.epoch_loop.restarting or getattr(loop.epoch_loop, "is_resuming", False)):
        return int(trainer.current_epoch)
    counted = loop.epoch_progress.current
    behind_last_batch = loop.epoch_loop.batch_progress.is_last_batch and counted.started > counted.processed
    return int(counted.processed + behind_last_batch)
