"""What the last linear layer of a network sees, and the network with another last layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_poison.attacks import class_scores
from lightning_poison.errors import UserError
from lightning_poison.nets.running import in_parts

__all__ = ["LastLayer", "penultimate_features"]


def penultimate_features(network: nn.Module, inputs: Tensor) -> Tensor:
    """The inputs of the linear layer that gives the class scores.

    Args:
        network: maps (N, ...) to logits (N, K) by a linear layer at its end.
        inputs: shape (n, ...), float.

    Returns:
        shape (n, d), float, on the CPU, computed in parts on the network's device.

    Raises:
        UserError: the linear layer that runs last does not give one number a class. What is done to its numbers
            afterwards, such as a softmax, does not matter.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(2, 3))
        >>> penultimate_features(network, torch.tensor([[[-1.0, 2.0]]]))
        tensor([[0., 2.]])
    """

    def seen(part: Tensor) -> Tensor:
        with _linear_passes(network) as passes:
            scores = class_scores(network, part)
        if not passes or passes[-1].output.shape != scores.shape:
            raise UserError(
                f"the network must end in a linear layer, got {type(network).__name__}, which does not; "
                "use InputSpace or PCASpace"
            )
        return passes[-1].input.flatten(1)

    return in_parts(network, inputs, seen)


class LastLayer:
    """What the last linear layer of a network sees, and the network with another last layer.

    Args:
        network: its output is the output of its last ``nn.Linear``.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> last = LastLayer(network)
        >>> last.features(torch.rand(5, 1, 2, 2)).shape, last.replaced(torch.zeros(7, 3), torch.zeros(7)) is network
        (torch.Size([5, 3]), False)
    """

    def __init__(self, network: nn.Module) -> None:
        linear = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
        if not linear:
            raise UserError(
                f"the network must end in a linear layer, got {type(network).__name__} without one; use weights=network"
            )
        self.network = network
        self._name, self._head = linear[-1]

    def features(self, inputs: Tensor) -> Tensor:
        """The inputs of the last layer.

        Args:
            inputs: shape (n, ...).

        Returns:
            shape (n, d), float32, on the CPU.

        Raises:
            UserError: the network does something after its last linear layer.
        """
        return in_parts(self.network, inputs, self._caught)

    def replaced(self, weight: Tensor, bias: Tensor) -> nn.Module:
        """The network with other weights, shape (K, d), and biases, shape (K,), in its last layer."""
        return _Replaced(self.network, self._name, weight.to(self._head.weight), bias.to(self._head.weight))

    def _caught(self, inputs: Tensor) -> Tensor:
        with _linear_passes(self.network) as passes:
            output = self.network(inputs)
        own = [each for each in passes if each.layer is self._head]
        if len(own) != 1 or own[0].input.ndim != 2 or not torch.equal(own[0].output, output):
            raise UserError(
                f"the output of the network {type(self.network).__name__} must be that of its last linear layer, "
                "got something that is computed from it; use weights=network"
            )
        return own[0].input


class _Pass(NamedTuple):
    """One time that a linear layer was run."""

    layer: nn.Module
    input: Tensor
    output: Tensor


@contextmanager
def _linear_passes(network: nn.Module) -> Iterator[list[_Pass]]:
    """All passes through linear layers inside, in their order."""
    passes: list[_Pass] = []
    hooks = [
        layer.register_forward_hook(lambda layer, given, made: passes.append(_Pass(layer, given[0], made)))
        for layer in network.modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


class _Replaced(nn.Module):
    def __init__(self, network: nn.Module, name: str, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.network = network
        prefix = f"{name}." if name else ""
        self._other = {f"{prefix}weight": weight, f"{prefix}bias": bias}

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.network, self._other, (inputs,))
        return logits
