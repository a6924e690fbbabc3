"""A resumed run that draws the same random numbers as an uninterrupted one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from lightning_poison._lightning import Callback
from lightning_poison.functional.random_streams import mix_seed

__all__ = ["EpochSeed"]


class EpochSeed(Callback):
    """Seeds every global generator anew at the start of each training epoch, from seed, epoch and rank.

    Dropout and augmentation in an epoch then depend on nothing that happened before it, so a run that was killed
    between two epochs and resumed equals the uninterrupted run. The seed travels in the checkpoint: another ``seed``
    on the second call changes nothing. Random augmentation inside loader workers keeps Lightning's own seeding.

    Args:
        seed: the run's seed.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Seed ``random``, NumPy and torch on every device."""
        seed = mix_seed(self.seed, "epoch", trainer.current_epoch, trainer.global_rank)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  # it is the global state that users' transforms draw from
        torch.manual_seed(seed)

    def state_dict(self) -> dict[str, Any]:
        """The seed."""
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the seed of the run that is resumed."""
        self.seed = int(state_dict["seed"])
