"""The epochs of an ensemble, whichever way its networks are trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_poison.ensembles.members import EpochTrainer
from lightning_poison.ensembles.trained import TrainedNetwork
from lightning_poison.functional.random_streams import generator

__all__ = ["run_epochs"]


def run_epochs(
    trainer: EpochTrainer,
    *,
    order_seed: int,
    watched: Tensor | None,
    history: bool,
    after_epoch: Callable[[int, list[nn.Module]], object] | None = None,
    advance: Callable[[int], Any] = lambda _: None,
) -> list[TrainedNetwork]:
    """Train all members to their end; the arguments are those of :func:`train_networks`."""
    recipe, members, device = trainer.recipe, trainer.members, trainer.inputs.device
    for epoch in range(recipe.epochs + recipe.extra_epochs):
        rows = [row for row, member in enumerate(members) if not member.finished]
        if not rows:
            break
        order = torch.randperm(len(trainer.inputs), generator=generator(order_seed, "order of the points", epoch))
        _train_epoch(trainer, epoch, rows, order.to(device), watched, history=history)
        advance(len(rows))
        if after_epoch is not None:
            after_epoch(epoch, [member.module.eval() for member in members])
    return [member.result() for member in members]


def _train_epoch(
    trainer: EpochTrainer, epoch: int, rows: list[int], order: Tensor, watched: Tensor | None, *, history: bool
) -> None:
    """Take some members through an epoch, and see which of them have finished."""
    right = order.new_zeros(len(rows), len(order), dtype=torch.bool) if history else None
    losses = trainer.train_epoch(epoch, rows, order, right)
    for position, row in enumerate(rows):
        member = trainer.members[row]
        member.epochs, member.loss = epoch + 1, losses[position]
        if right is not None:
            member.right.append(right[position].cpu())
        if member.epochs >= trainer.recipe.epochs:
            if watched is not None:
                member.look(trainer.inputs, trainer.labels[row], watched[row])
            member.finished = not member.fitted < 1.0  # NaN, where nothing is watched, is no reason to go on
