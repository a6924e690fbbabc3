"""Several networks in one step: their weights stacked, their memory reused, and whether that is faster."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lightning_poison.ensembles.members import EpochTrainer, Member
from lightning_poison.ensembles.recipe import TrainingRecipe
from lightning_poison.functional.random_streams import kept_random_state

__all__ = ["StackedTrainer", "keep_freed_memory", "stacking_pays", "why_not_stacked"]

_CPU_STACK = 8  # networks of one stack; the activations of more would not stay in the cache
_LARGEST = 31 * 2**20  # bytes; the C library takes no threshold above 32 MiB from what it sees
_STATEFUL = (nn.modules.batchnorm._NormBase, nn.RNNBase)
_RANDOM = (nn.modules.dropout._DropoutNd,)
_POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


class StackedTrainer(EpochTrainer):
    """Every layer is computed for several networks at once, and one optimiser steps for all of them.

    A network that has finished leaves its stack and stays as it is.
    """

    def __init__(self, members: Sequence[Member], inputs: Tensor, labels: Tensor, recipe: TrainingRecipe) -> None:
        super().__init__(members, inputs, labels, recipe)
        size = _CPU_STACK if inputs.device.type == "cpu" else len(members)
        rows = list(range(len(members)))
        self._parts = [_Part(self, rows[start : start + size]) for start in range(0, len(rows), size)]

    def train_epoch(self, epoch: int, rows: list[int], order: Tensor, right: Tensor | None) -> list[float]:
        """Train the rows, stack by stack."""
        position = {row: number for number, row in enumerate(rows)}
        losses = [0.0] * len(rows)
        for part in self._parts:
            part.keep([row for row in part.rows if row in position])
            if part.rows:
                own_losses, own_right = part.train_epoch(epoch, order, history=right is not None)
                for number, row in enumerate(part.rows):
                    losses[position[row]] = own_losses[number]
                    if right is not None:
                        right[position[row]] = own_right[number]
        return losses


class _Part:
    """The networks of one stack."""

    def __init__(self, trainer: EpochTrainer, rows: list[int]) -> None:
        self.rows, self._trainer = rows, trainer
        self._stack()

    def _stack(self) -> None:
        self._weights = _StackedWeights([self._trainer.members[row].module for row in self.rows])
        self._optimizer = self._trainer.optimizer(self._weights.tensors)

    def keep(self, rows: list[int]) -> None:
        """Leave the other networks out of the stack and of the optimiser's memory."""
        if rows == self.rows:
            return
        kept = torch.tensor([self.rows.index(row) for row in rows], device=self._trainer.inputs.device)
        before, memory, self.rows = self._weights.tensors, self._optimizer.state, rows
        if not rows:
            return
        self._stack()
        for old, new in zip(before, self._weights.tensors, strict=True):
            state = {name: value[kept] if value.shape == old.shape else value for name, value in memory[old].items()}
            self._optimizer.state[new] = state

    def train_epoch(self, epoch: int, order: Tensor, *, history: bool) -> tuple[list[float], Tensor]:
        """The loss of each network, and where asked for which points it got right, (rows, n)."""
        inputs, labels = self._trainer.inputs, self._trainer.labels[self.rows]
        right = order.new_zeros(labels.shape if history else (0,), dtype=torch.bool)
        total = torch.zeros(len(labels), device=inputs.device)
        for member in self.rows:
            self._trainer.members[member].module.train()
        for rate, chosen in self._trainer.rates(epoch, order):
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            scores, wanted = self._weights.scores(inputs[chosen]), labels[:, chosen]
            losses = nn.functional.cross_entropy(scores.flatten(0, 1), wanted.flatten(), reduction="none")
            losses = losses.view(wanted.shape).mean(dim=1)
            self._optimizer.zero_grad()
            losses.sum().backward()  # type: ignore[no-untyped-call]  # torch's
            self._optimizer.step()
            total += losses.detach() * len(chosen)
            if history:
                right[:, chosen] = scores.detach().argmax(dim=2) == wanted
        return (total / len(order)).tolist(), right


class _StackedWeights:
    """Networks of one architecture as one function of stacked weights, each with the shape (E, ...).

    The weights of the modules become views into the stack: they are always what the stack is.

    Args:
        modules: E networks.

    Raises:
        RuntimeError: their weights differ in shape.

    Example:
        >>> networks = [nn.Linear(3, 2), nn.Linear(3, 2)]
        >>> _StackedWeights(networks).scores(torch.rand(5, 3)).shape
        torch.Size([2, 5, 2])
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        first = self._first = modules[0]
        self._buffers = {
            name: torch.stack([module.get_buffer(name) for module in modules]) for name, _ in first.named_buffers()
        }
        self._weights = {}
        for name, weight in first.named_parameters():
            own = [module.get_parameter(name) for module in modules]
            stacked = self._weights[name] = torch.stack([each.detach() for each in own])
            for each, view in zip(own, stacked.detach(), strict=True):
                each.data = view
            stacked.requires_grad_(weight.requires_grad)

    @property
    def tensors(self) -> list[Tensor]:
        """The stacked weights, each (E, ...), leaves of the graph."""
        return list(self._weights.values())

    def scores(self, inputs: Tensor) -> Tensor:
        """Class scores (E, N, K) of inputs (N, ...) that all networks share."""
        scores: Tensor = vmap(self._call, in_dims=(0, 0, None))(self._weights, self._buffers, inputs)
        return scores

    def _call(self, weights: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor) -> Tensor:
        scores: Tensor = functional_call(self._first, (weights, buffers), (inputs,))
        return scores


# --- whether to stack -------------------------------------------------------------------------------------------------


def stacking_pays(module: nn.Module, device: torch.device | str) -> bool:
    """Whether a stack of such networks is faster than one after the other, as measured on those of this package.

    Anywhere but on a CPU small networks wait for the launch of their kernels, and it always is. On a CPU convolutions
    with a stride gain, as grouped kernels are faster than those for few channels; others and dense layers do not.

    Example:
        >>> from lightning_poison.nets import MLP, StrideCNN
        >>> stacking_pays(StrideCNN(), "cpu"), stacking_pays(MLP(), "cpu"), stacking_pays(MLP(), "cuda")
        (True, False, True)
    """
    if torch.device(device).type != "cpu":
        return True
    layers = list(module.modules())
    strides = [max(layer.stride) for layer in layers if isinstance(layer, nn.Conv2d)]
    return bool(strides) and min(strides) > 1 and not any(isinstance(layer, _POOLING) for layer in layers)


def why_not_stacked(members: Sequence[Member], sample: Tensor) -> str | None:
    """What keeps networks from being trained as one, in words; None: nothing.

    Args:
        members: the networks.
        sample: shape (N, ...): a few inputs on their device.
    """
    for layer in members[0].module.modules():
        if isinstance(layer, _RANDOM):
            return f"{type(layer).__name__} draws random numbers"
        if isinstance(layer, _STATEFUL):
            return f"{type(layer).__name__} keeps a state beside its weights"
    with torch.no_grad(), kept_random_state(0, sample.device):
        apart = torch.stack([member.module.train()(sample) for member in members])
        try:
            scores = _StackedWeights([member.module for member in members]).scores(sample)
        except RuntimeError as error:
            return str(error).partition("\n")[0]
    return None if torch.allclose(scores, apart, rtol=1e-3, atol=1e-4) else "its networks compute something else then"


# --- memory -----------------------------------------------------------------------------------------------------------


@cache
def keep_freed_memory() -> None:
    """Make the C library keep what a training step frees, up to twice 31 MiB, once in the life of the process.

    It gives large blocks back to the system at once, and each step then waits for new pages, which costs a stack of
    convolutions a third of its time. The GNU library learns from what a program does: after one large block has been
    freed, blocks of that size are kept (its manual: dynamic mmap threshold). Elsewhere this does nothing.

    Example:
        >>> keep_freed_memory()
    """
    torch.empty(_LARGEST, dtype=torch.uint8)
