"""A resumed run that draws the same random numbers as an uninterrupted one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from lightning_poison._lightning import Callback
from lightning_poison.functional.random_streams import mix_seed

__all__ = ["EpochSeed"]


class EpochSeed(Callback):
    """Seeds every global generator anew at the start of each training epoch, from seed, epoch and rank.

    Dropout, augmentation, and the order of a loader that shuffles then depend on nothing that happened before the
    epoch, in this process and in loader workers, whose seeds are drawn in it. (Workers of the very first epoch are
    seeded from the state that ``fit`` finds.) A run that goes on from a checkpoint of an epoch's end, written after its
    last batch, after its validation, or behind both, ends with the weights of the uninterrupted run, bit for bit. The
    seed travels in the checkpoint: another ``seed`` on the second call changes nothing.

    Not exact, with a warning when the run goes on: workers that outlive an epoch (``persistent_workers``), and a loader
    or sampler with a ``generator`` of its own, whose state no checkpoint holds. From a checkpoint within an epoch
    Lightning begins that epoch's data anew and takes as many batches as were left; in the epochs after it, order and
    random numbers are those of the uninterrupted run. (Under ``max_steps`` it takes a checkpoint of an epoch's end for
    one within it, unless the epoch ends with a validation.)

    Args:
        seed: the run's seed.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Seed now where a run goes on within or right behind an epoch: Lightning leaves out that epoch's start."""
        loop = trainer.fit_loop
        if _goes_on(loop) or getattr(loop, "resumed_on_epoch_end", False):  # the latter before Lightning 2.6
            _warn_of_other_streams(loop)
        if getattr(loop, "restarted_mid_epoch", False) or getattr(loop, "restarted_on_epoch_end", False):
            self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Seed ``random``, NumPy and torch on every device."""
        seed = mix_seed(self.seed, "epoch", trainer.current_epoch, trainer.global_rank)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  # it is the global state that users' transforms draw from
        torch.manual_seed(seed)
        _begin_loaders_anew(trainer.fit_loop)

    def state_dict(self) -> dict[str, Any]:
        """The seed."""
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the seed of the run that is resumed."""
        self.seed = int(state_dict["seed"])


def _goes_on(loop: Any) -> bool:
    """Whether the fit goes on from a checkpoint with the epoch that begins."""
    return bool(getattr(loop, "is_resuming", False) or loop.epoch_loop.restarting)


def _begin_loaders_anew(loop: Any) -> None:
    """Make the first epoch's iterators after the seeding in a run that goes on, as in every other epoch.

    An iterator draws the seeds of its workers, and a shuffled order where workers fetch ahead, when it is made:
    normally behind ``on_train_epoch_start``, but where Lightning goes on from a checkpoint before it, in the set-up. A
    loader that restores its own position is left alone.
    """
    if not _goes_on(loop) or not all(_is_plain(loader) for loader in _loaders(loop)):
        return
    loop._data_fetcher.teardown()
    iter(loop._data_fetcher)


def _warn_of_other_streams(loop: Any) -> None:
    for loader in _loaders(loop):
        if getattr(loader, "persistent_workers", False):
            kept = "persistent_workers=True, which keeps the workers' random numbers from one epoch to the next"
        elif any(getattr(part, "generator", None) is not None for part in (loader, getattr(loader, "sampler", None))):
            kept = "a generator of its own, whose state no checkpoint holds"
        else:
            continue
        rank_zero_warn(
            f"The resumed run may draw other random numbers than an uninterrupted one: the training loader has {kept}."
        )


def _loaders(loop: Any) -> list[Any]:
    combined = loop._combined_loader
    return [] if combined is None else list(combined.flattened)


def _is_plain(loader: Any) -> bool:
    return isinstance(loader, DataLoader) and not hasattr(loader, "load_state_dict")
