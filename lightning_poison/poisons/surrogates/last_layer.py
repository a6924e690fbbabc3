"""A network taken apart at its last layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_poison.errors import UserError
from lightning_poison.nets.running import in_parts

__all__ = ["LastLayer"]


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
        caught: list[tuple[Tensor, Tensor]] = []
        hook = self._head.register_forward_hook(lambda _, taken, given: caught.append((taken[0], given)))
        try:
            output = self.network(inputs)
        finally:
            hook.remove()
        if len(caught) != 1 or caught[0][0].ndim != 2 or not torch.equal(caught[0][1], output):
            raise UserError(
                f"the output of the network {type(self.network).__name__} must be that of its last linear layer, "
                "got something that is computed from it; use weights=network"
            )
        return caught[0][0]


class _Replaced(nn.Module):
    def __init__(self, network: nn.Module, name: str, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.network = network
        prefix = f"{name}." if name else ""
        self._other = {f"{prefix}weight": weight, f"{prefix}bias": bias}

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.network, self._other, (inputs,))
        return logits
