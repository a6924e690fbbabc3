"""Several networks that differ in seed or labels, trained stacked, in turn or in processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_poison.attacks.model import batch_layout
from lightning_poison.ensembles.members import EpochTrainer, Member, build_members, run_epochs
from lightning_poison.ensembles.recipe import TrainedNetwork, TrainingRecipe
from lightning_poison.ensembles.stacked import StackedTrainer, keep_freed_memory, stacking_pays, why_not_stacked
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_integer, check_labels
from lightning_poison.functional.random_streams import isolated_run, kept_random_state, mix_seed
from lightning_poison.functional.workers import in_workers

__all__ = ["SequentialTrainer", "train_networks"]

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
            return _train_in_processes(members, inputs, labels, recipe, **settings)
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


# --- in turn ----------------------------------------------------------------------------------------------------------


class SequentialTrainer(EpochTrainer):
    """Each network for itself, with any layers.

    On a CPU the channels of a pixel lie side by side where the network can take it (see ``batch_layout``), which speeds
    pooling up. What a layer draws (dropout) comes from a stream of the member's seed and the epoch.
    """

    def __init__(self, members: Sequence[Member], inputs: Tensor, labels: Tensor, recipe: TrainingRecipe) -> None:
        super().__init__(members, inputs, labels, recipe)
        with kept_random_state(0, inputs.device):
            self._lay_out = batch_layout(members[0].module.eval(), inputs)
        self._optimizers = [self.optimizer(list(member.module.parameters())) for member in members]

    def train_epoch(self, epoch: int, rows: list[int], order: Tensor, right: Tensor | None) -> list[float]:
        """Train the rows in turn."""
        losses = []
        for position, row in enumerate(rows):
            with kept_random_state(mix_seed(self.members[row].seed, "layers that draw", epoch), self.inputs.device):
                losses.append(self._train_member(epoch, row, order, None if right is None else right[position]))
        return losses

    def _train_member(self, epoch: int, row: int, order: Tensor, right: Tensor | None) -> float:
        module, optimizer, labels = self.members[row].module.train(), self._optimizers[row], self.labels[row]
        total = torch.zeros((), device=self.inputs.device)
        for rate, chosen in self.rates(epoch, order):
            for group in optimizer.param_groups:
                group["lr"] = rate
            scores = module(self._lay_out(self.inputs[chosen]))
            loss = nn.functional.cross_entropy(scores, labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            optimizer.step()
            total += loss.detach() * len(chosen)
            if right is not None:
                right[chosen] = scores.detach().argmax(dim=1) == labels[chosen]
        return float(total) / len(order)


# --- in processes -----------------------------------------------------------------------------------------------------


def _train_in_processes(
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
