"""One network for each process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_poison.ensembles.allocator import keep_freed_memory
from lightning_poison.ensembles.loop import run_epochs
from lightning_poison.ensembles.members import Member
from lightning_poison.ensembles.recipe import TrainingRecipe
from lightning_poison.ensembles.sequential import SequentialTrainer
from lightning_poison.ensembles.trained import TrainedNetwork
from lightning_poison.functional.isolation import isolated_run
from lightning_poison.functional.workers import in_workers

__all__ = ["train_in_processes"]


def train_in_processes(
    members: Sequence[Member],
    inputs: Tensor,
    labels: Tensor,
    recipe: TrainingRecipe,
    *,
    order_seed: int,
    watched: Tensor | None,
    history: bool,
    advance: Callable[[int], Any],
) -> list[TrainedNetwork]:
    """Train members side by side, each on one thread of a process; equal to one after the other on one thread.

    joblib shares the work out: over one process for each core, or what a surrounding ``joblib.parallel_config`` says,
    such as the workers of a Dask cluster. The arguments are those of :func:`train_networks`.
    """
    shared, settings = inputs.detach().numpy(), (recipe, order_seed, history)
    rows = (
        (member, shared, labels[row].numpy(), None if watched is None else watched[row].numpy(), *settings)
        for row, member in enumerate(members)
    )
    trained = []
    for network in in_workers(_train, rows, jobs=None):
        trained.append(network)
        advance(network.epochs)
    return trained


def _train(
    member: Member,
    inputs: NDArray[Any],
    labels: NDArray[np.int64],
    watched: NDArray[np.bool_] | None,
    recipe: TrainingRecipe,
    order_seed: int,
    history: bool,
) -> TrainedNetwork:
    keep_freed_memory()
    with isolated_run(0):
        trainer = SequentialTrainer([member], torch.from_numpy(inputs), torch.from_numpy(labels)[None], recipe)
        looked_at = None if watched is None else torch.from_numpy(watched)[None]
        return run_epochs(trainer, order_seed=order_seed, watched=looked_at, history=history)[0]
