from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import torch

from lightning_poison.callbacks import EpochSeed


def draws(callback: EpochSeed, epoch: int, rank: int = 0) -> tuple[float, float, float]:
    callback.on_train_epoch_start(SimpleNamespace(current_epoch=epoch, global_rank=rank), None)
    numpy_draw = float(np.random.rand())  # noqa: NPY002  # the global state is what is tested
    return random.random(), numpy_draw, float(torch.rand(()))


def test_draws_depend_on_seed_epoch_and_rank_alone() -> None:
    first = draws(EpochSeed(3), 5)
    torch.rand(100)
    assert draws(EpochSeed(3), 5) == first
    for other in (draws(EpochSeed(4), 5), draws(EpochSeed(3), 6), draws(EpochSeed(3), 5, rank=1)):
        assert all(one != two for one, two in zip(first, other, strict=True))


def test_the_seed_of_the_first_run_wins() -> None:
    resumed = EpochSeed(99)
    resumed.load_state_dict(EpochSeed(3).state_dict())
    assert draws(resumed, 5) == draws(EpochSeed(3), 5)
