"""Several networks that differ in seed or labels, trained on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_poison.ensembles.allocator import keep_freed_memory
from lightning_poison.ensembles.loop import run_epochs
from lightning_poison.ensembles.members import EpochTrainer, Member, build_members
from lightning_poison.ensembles.processes import train_in_processes
from lightning_poison.ensembles.recipe import TrainingRecipe
from lightning_poison.ensembles.sequential import SequentialTrainer
from lightning_poison.ensembles.stacked import StackedTrainer, stacking_pays, why_not_stacked
from lightning_poison.ensembles.trained import TrainedNetwork
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_integer, check_labels

__all__ = ["train_networks"]

_METHODS = ("auto", "sequential", "vmapped", "processes")


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
    history: bool = False,
    advance: Callable[[int], Any] = lambda _: None,
) -> list[TrainedNetwork]:
    """Train one network for each seed.

    All see the inputs in the same order (of ``order_seed``), so two that share a seed differ by their labels only.

    Args:
        net: makes a network when called with ``num_classes=K``.
        inputs: shape (n, ...), float32.
        labels: shape (E, n), int64: of each network; (n,): the same for all.
        num_classes: K.
        seeds: of the E networks' initial weights.
        recipe: how to train; None: the recipe's defaults.
        order_seed: of the order of the points.
        watched: shape (E, n) or (n,), bool: points that must be fitted before training may stop early, see
            ``recipe.extra_epochs``. A network with none stops after ``recipe.epochs``.
        method: "sequential": one after the other; "vmapped": as one stack of weights, equal up to rounding, refused
            for layers that draw numbers or keep a state (dropout, batch normalisation); "processes": side by side, over
            the cores or where ``joblib.parallel_config`` says, each on one thread; "auto": the faster of the first two.
        device: where to train.
        after_epoch: called with the epoch and the networks in eval mode, to look at them; those that have finished
            early stay as they are.
        history: whether to keep which points are right in each epoch, see ``TrainedNetwork.right``.
        advance: called with the number of member epochs that are done.

    Returns:
        E networks, in the order of the seeds.

    Raises:
        UserError: the labels, the inputs, the network and the method do not fit together.

    Example:
        >>> from lightning_poison.nets import MLP
        >>> inputs, labels = torch.rand(20, 1, 4, 4), torch.arange(20) % 2
        >>> make = lambda num_classes: MLP(num_classes, 1, 4, hidden=(8,))
        >>> [trained.epochs for trained in train_networks(make, inputs, labels, 2, [0, 1], TrainingRecipe(epochs=2))]
        [2, 2]
    """
    recipe = recipe or TrainingRecipe()
    check_choice("method", method, _METHODS)
    labels = _per_member(labels, len(seeds), len(inputs), "labels")
    _check_data(inputs, labels, num_classes)
    watched = None if watched is None else _per_member(watched, len(seeds), len(inputs), "watched").bool()
    _check_method(method, device, after_epoch)
    settings: dict[str, Any] = {"order_seed": order_seed, "watched": watched, "history": history, "advance": advance}
    keep_freed_memory()
    with torch.inference_mode(False), torch.enable_grad():
        members = build_members(net, inputs[:2], num_classes, seeds, device)
        inputs, labels = inputs.to(device), labels.to(device, torch.int64)
        if method == "processes":
            return train_in_processes(members, inputs, labels, recipe, **settings)
        trainer = _trainer(method, members, inputs[:2])(members, inputs, labels, recipe)
        return run_epochs(trainer, after_epoch=after_epoch, **settings)


def _trainer(method: str, members: Sequence[Member], sample: Tensor) -> type[EpochTrainer]:
    pays = len(members) > 1 and stacking_pays(members[0].module, sample.device)
    if method == "sequential" or (method == "auto" and not pays):
        return SequentialTrainer
    reason = why_not_stacked(members, sample)
    if reason is None:
        return StackedTrainer
    if method == "auto":
        return SequentialTrainer
    raise UserError(
        f'method must be "sequential" for {type(members[0].module).__name__}, got "vmapped": {reason}; '
        'pass method="sequential" or "auto"'
    )


def _check_method(method: str, device: torch.device | str, after_epoch: object) -> None:
    if method != "processes":
        return
    if torch.device(device).type != "cpu":
        raise UserError(f'method="processes" trains on CPUs, got device={device}; pass method="auto"')
    if after_epoch is not None:
        raise UserError('method="processes" cannot call after_epoch in another process; pass method="auto"')


def _per_member(values: Tensor, count: int, points: int, name: str) -> Tensor:
    if values.shape not in ((count, points), (points,)):
        raise UserError(
            f"{name} must have shape ({points},) or ({count}, {points}) for {count} networks and {points} inputs, "
            f"got {tuple(values.shape)}"
        )
    return values.expand(count, points)


def _check_data(inputs: Tensor, labels: Tensor, num_classes: int) -> None:
    if not labels.numel():
        raise UserError(f"there must be a network and a point to train on, got {len(labels)} and {len(inputs)}")
    if not inputs.is_floating_point():
        raise UserError(f"inputs must be floating point, got {inputs.dtype}; convert them, such as with inputs.float()")
    num_classes = check_integer("num_classes", num_classes, minimum=1)
    check_labels("labels", labels.flatten(), num_classes)
