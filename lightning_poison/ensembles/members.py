"""The networks of an ensemble under training, and the loop that trains them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_poison.ensembles.recipe import TrainedNetwork, TrainingRecipe
from lightning_poison.errors import UserError
from lightning_poison.functional.random_streams import generator, kept_random_state, mix_seed
from lightning_poison.nets.building import build_net

__all__ = ["EpochTrainer", "Member", "build_members", "run_epochs"]

_CHUNK = 500  # inputs of one forward pass; activations of all training points would fill the memory


class Member:
    """One network and how far it is.

    Args:
        module: the network.
        seed: of its initial weights.
    """

    def __init__(self, module: nn.Module, seed: int) -> None:
        self.module, self.seed = module, seed
        self.epochs, self.loss, self.fitted = 0, math.nan, math.nan
        self.finished = False
        self.right: list[Tensor] = []

    def look(self, inputs: Tensor, labels: Tensor, watched: Tensor) -> None:
        """Find the share of the watched points that the network predicts as they are labelled.

        Args:
            inputs: shape (n, ...).
            labels: shape (n,), int64.
            watched: shape (n,), bool.
        """
        points = watched.to(inputs.device).nonzero().flatten()
        if not len(points):
            return
        self.module.eval()
        with torch.no_grad():
            right = [self.module(inputs[part]).argmax(dim=1) == labels[part] for part in torch.split(points, _CHUNK)]
        self.fitted = float(torch.cat(right).double().mean())

    def result(self) -> TrainedNetwork:
        """The network as it is now, which then owns its memory and asks for no gradient."""
        for weight in self.module.parameters():
            weight.grad = None
            weight.data = weight.data.clone()
        module = self.module.eval().requires_grad_(False)
        right = torch.stack(self.right).cpu() if self.right else None
        return TrainedNetwork(module, self.seed, self.epochs, self.loss, self.fitted, right)


class EpochTrainer(ABC):
    """A way to take networks through an epoch.

    Args:
        members: the networks.
        inputs: shape (n, ...), on the device of the networks.
        labels: shape (E, n), int64, likewise.
        recipe: how to train.
    """

    def __init__(self, members: Sequence[Member], inputs: Tensor, labels: Tensor, recipe: TrainingRecipe) -> None:
        self.members, self.inputs, self.labels, self.recipe = members, inputs, labels, recipe

    @abstractmethod
    def train_epoch(self, epoch: int, rows: list[int], order: Tensor, right: Tensor | None) -> list[float]:
        """Take some of the networks through one epoch.

        Args:
            epoch: its number, from 0.
            rows: of the networks; once left out, a network never comes back.
            order: shape (n,), int64: of the points.
            right: shape (len(rows), n), bool: to be filled with whether each point was predicted right, if given.

        Returns:
            mean training loss of each row.
        """

    def rates(self, epoch: int, order: Tensor) -> list[tuple[float, Tensor]]:
        """The learning rate and the points of each step of an epoch."""
        batches = torch.split(order, self.recipe.batch_size)
        return [(self.recipe.rate(epoch + step / len(batches)), chosen) for step, chosen in enumerate(batches)]

    def optimizer(self, weights: Sequence[Tensor]) -> torch.optim.AdamW:
        """The recipe's optimiser, in one kernel, so that every way of training rounds alike."""
        return torch.optim.AdamW(weights, self.recipe.lr, weight_decay=self.recipe.weight_decay, fused=True)


def build_members(
    net: Callable[[int], nn.Module],
    sample: Tensor,
    num_classes: int,
    seeds: Sequence[int],
    device: torch.device | str,
) -> list[Member]:
    """Make the networks, each from initial weights of its seed, and check that they fit the data.

    Args:
        net: makes a network when called with ``num_classes=K``.
        sample: shape (N, ...): a few inputs.
        num_classes: K.
        seeds: of the initial weights.
        device: where to put the networks.

    Returns:
        one member for each seed.

    Raises:
        UserError: ``net`` makes no network, the same one each time, or one that does not fit the data.
    """
    if isinstance(net, nn.Module):
        raise UserError(
            f"net must be a function that makes a network, got a {type(net).__name__}; "
            "each member needs one of its own: pass its class or a function"
        )
    members: list[Member] = []
    for seed in seeds:
        with kept_random_state(mix_seed(seed, "initial weights")):
            module = build_net(net, num_classes)
            _check_output(module, sample, num_classes)
        members.append(Member(module.to(device), seed))
    if len({id(member.module) for member in members}) < len(members):
        raise UserError("net must make a new network each time that it is called, got the same one twice")
    return members


def _check_output(module: nn.Module, sample: Tensor, num_classes: int) -> None:
    name, shape = type(module).__name__, tuple(sample.shape[1:])
    weight = next(module.parameters(), None)
    try:
        with torch.no_grad():
            scores = module.eval()(sample.to("cpu" if weight is None else weight.device))
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"the network {name} cannot take inputs of shape {shape} ({reason}); fit its size") from error
    if not isinstance(scores, Tensor) or scores.shape != (len(sample), num_classes):
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise UserError(
            f"the network {name} must give num_classes={num_classes} scores for each of {len(sample)} inputs, got {got}"
        )


# --- the loop ---------------------------------------------------------------------------------------------------------


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
