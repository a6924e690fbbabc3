"""Which sample of the data set stands at which place of a rank's batches."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

__all__ = ["evaluation_positions", "sample_positions"]


def sample_positions(sampler: Any, length: int, first: int, size: int) -> Tensor:
    """Positions, in the order a single process would see, of a run of samples on this rank.

    ``DistributedSampler`` deals position p to rank p mod R and repeats the first positions until every rank has the
    same number; a sample dealt at p >= ``length`` is such a repeat and must not be counted again. Any other sampler
    means that this rank sees everything.

    Args:
        sampler: the loader's sampler.
        length: number of samples in the data set.
        first: how many samples this rank has seen before the run.
        size: length of the run.

    Returns:
        shape (size,), int64; -1 for a repeat.

    Example:
        >>> sampler = DistributedSampler(range(3), num_replicas=2, rank=1, shuffle=False)
        >>> sample_positions(sampler, 3, first=0, size=2)
        tensor([ 1, -1])
    """
    positions = torch.arange(first, first + size)
    if isinstance(sampler, DistributedSampler):
        positions = sampler.rank + positions * sampler.num_replicas
        positions[positions >= length] = -1
    return positions


def evaluation_positions(
    trainer: Any, batch_idx: int, dataloader_idx: int, size: int, first: int | None = None
) -> Tensor:
    """:func:`sample_positions` of an evaluation batch of a Lightning Trainer.

    Args:
        trainer: either Lightning's Trainer while it validates or tests.
        batch_idx: as given to the hook.
        dataloader_idx: as given to the hook.
        size: number of samples in the batch.
        first: how many samples this rank has seen before the batch; None: as many as batches of one size hold.

    Returns:
        shape (size,), int64; -1 for a repeat.
    """
    loaders = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    loader = loaders[dataloader_idx] if isinstance(loaders, (list, tuple)) else loaders
    batch_sampler = getattr(loader, "batch_sampler", None)
    batch_size = getattr(batch_sampler, "batch_size", None) or getattr(loader, "batch_size", None) or size
    sampler = getattr(batch_sampler, "sampler", None) or getattr(loader, "sampler", None)
    # A sampler of part of the data set stands inside the distributed one, as its data set.
    dataset = sampler.dataset if isinstance(sampler, DistributedSampler) else getattr(loader, "dataset", None)
    length = len(dataset) if isinstance(dataset, Sized) else 0
    return sample_positions(sampler, length, batch_idx * batch_size if first is None else first, size)
