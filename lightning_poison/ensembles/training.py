"""Several networks that differ in seed or labels, trained on the same inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_poison.ensembles.recipe import TrainingRecipe
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice
from lightning_poison.functional.random_state import kept_random_state
from lightning_poison.functional.random_streams import generator, mix_seed

__all__ = ["TrainedNetwork", "train_networks"]


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network and how its training went.

    Args:
        module: the network in eval mode, its weights frozen.
        seed: of its initial weights.
        epochs: how many it was trained for.
        loss: mean training loss of the last epoch.
        fitted: share of the watched points whose training label it predicts; NaN where none was watched.
    """

    module: nn.Module
    seed: int
    epochs: int
    loss: float
    fitted: float


def train_networks(
    net: Callable[[int], nn.Module],
    inputs: Tensor,
    labels: Tensor,
    num_classes: int,
    seeds: Sequence[int],
    recipe: TrainingRecipe | None = None,
    *,
    order_seed: int = 0,
    watched: Tensor | None = None,
    method: str = "auto",
    device: torch.device | str = "cpu",
    after_epoch: Callable[[int, list[nn.Module]], object] | None = None,
    advance: Callable[[int], Any] = lambda _: None,
) -> list[TrainedNetwork]:
    """Train one network for each seed.

    All see the inputs in the same order (of ``order_seed``), so two that share a seed differ by their labels only.

    Args:
        net: makes a network when called with ``num_classes=K``.
        inputs: shape (n, ...), float32, on the CPU.
        labels: shape (E, n), int64: of each network; (n,): the same for all.
        num_classes: K.
        seeds: of the E networks' initial weights.
        recipe: how to train; None: the recipe's defaults.
        order_seed: of the order of the points.
        watched: shape (E, n) or (n,), bool: points that must be fitted before training may stop early, see
            ``recipe.extra_epochs``.
        method: "sequential" or "auto".
        device: where to train.
        after_epoch: called with the epoch and the networks in eval mode, to look at them.
        advance: called with the number of member epochs that are done.

    Returns:
        E networks, in the order of the seeds.

    Raises:
        UserError: the labels, the inputs and the network do not fit together.

    Example:
        >>> from lightning_poison.nets import MLP
        >>> inputs, labels = torch.rand(20, 1, 4, 4), torch.arange(20) % 2
        >>> make = lambda num_classes: MLP(num_classes, 1, 4, hidden=(8,))
        >>> [trained.epochs for trained in train_networks(make, inputs, labels, 2, [0, 1], TrainingRecipe(epochs=2))]
        [2, 2]
    """
    recipe = recipe or TrainingRecipe()
    check_choice("method", method, ("auto", "sequential"))
    labels = _per_member(labels, len(seeds), len(inputs), "labels")
    watched = None if watched is None else _per_member(watched, len(seeds), len(inputs), "watched")
    members = [_Member(net, num_classes, seed, recipe, device) for seed in seeds]
    inputs, labels = inputs.to(device), labels.to(device)
    for epoch in range(recipe.epochs + recipe.extra_epochs):
        running = [row for row, member in enumerate(members) if not member.finished]
        if not running:
            break
        order = torch.randperm(len(inputs), generator=generator(order_seed, "order of the points", epoch)).to(device)
        for row in running:
            member = members[row]
            member.train_epoch(epoch, inputs, labels[row], order)
            if watched is not None:
                member.look(inputs, labels[row], watched[row].to(device))
            member.finished = epoch + 1 >= recipe.epochs and (watched is None or member.fitted == 1.0)
            advance(1)
        if after_epoch is not None:
            after_epoch(epoch, [member.module.eval() for member in members])
    return [member.result() for member in members]


class _Member:
    """One network under training."""

    def __init__(
        self,
        net: Callable[[int], nn.Module],
        num_classes: int,
        seed: int,
        recipe: TrainingRecipe,
        device: torch.device | str,
    ) -> None:
        with kept_random_state(mix_seed(seed, "initial weights")):
            self.module = net(num_classes=num_classes).to(device)  # type: ignore[call-arg]  # by name, as build_net does
        self.seed, self.recipe = seed, recipe
        self.optimizer = torch.optim.AdamW(self.module.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
        self.epochs, self.loss, self.fitted, self.finished = 0, math.nan, math.nan, False

    def train_epoch(self, epoch: int, inputs: Tensor, labels: Tensor, order: Tensor) -> None:
        self.module.train()
        total = torch.zeros((), device=inputs.device)
        batches = torch.split(order, self.recipe.batch_size)
        with torch.inference_mode(False), torch.enable_grad():
            for step, chosen in enumerate(batches):
                rate = self.recipe.rate(epoch + step / len(batches))
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                loss = nn.functional.cross_entropy(self.module(inputs[chosen]), labels[chosen])
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch's
                self.optimizer.step()
                total += loss.detach() * len(chosen)
        self.epochs, self.loss = epoch + 1, float(total) / len(inputs)

    def look(self, inputs: Tensor, labels: Tensor, watched: Tensor) -> None:
        self.module.eval()
        with torch.no_grad():
            right = self.module(inputs[watched]).argmax(dim=1) == labels[watched]
        self.fitted = float(right.double().mean())

    def result(self) -> TrainedNetwork:
        module = self.module.eval().requires_grad_(False)
        return TrainedNetwork(module, self.seed, self.epochs, self.loss, self.fitted)


def _per_member(values: Tensor, count: int, points: int, name: str) -> Tensor:
    if values.shape not in ((count, points), (points,)):
        raise UserError(
            f"{name} must have shape ({points},) or ({count}, {points}) for {count} networks and {points} inputs, "
            f"got {tuple(values.shape)}"
        )
    return values.expand(count, points)
