"""Running a network over many inputs, wherever it is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_poison.attacks import frozen_eval

__all__ = ["device_of", "in_parts"]

_CHUNK = 1000


def device_of(network: nn.Module) -> torch.device:
    """Where the weights are; the CPU where there are none.

    Example:
        >>> device_of(nn.Flatten())
        device(type='cpu')
    """
    return next((weight.device for weight in network.parameters()), torch.device("cpu"))


def in_parts(network: nn.Module, inputs: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """What ``compute`` makes of all inputs, a part at a time, with the network in eval mode and without gradients.

    Args:
        network: what computes.
        inputs: shape (n, ...).
        compute: maps (N, ...) on the network's device to (N, ...).

    Returns:
        shape (n, ...), on the CPU.

    Example:
        >>> network = nn.Linear(2, 3)
        >>> in_parts(network, torch.rand(5, 2), network).shape
        torch.Size([5, 3])
    """
    device = device_of(network)
    with frozen_eval(network), torch.no_grad():
        return torch.cat([compute(part.to(device)).cpu() for part in torch.split(inputs, _CHUNK)])
