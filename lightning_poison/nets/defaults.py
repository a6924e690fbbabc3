"""The networks that are taken when the user names none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from lightning_poison.nets.small import MLP, PoolCNN, StrideCNN

__all__ = ["default_nets", "mlp_for", "net_for"]

_WIDTHS = ((256, 256), (512,), (128, 128, 128))


def net_for(shape: torch.Size) -> Callable[[int], nn.Module]:
    """A small network for inputs of a shape: ``StrideCNN`` for square images, else an ``MLP`` on the flat input.

    Args:
        shape: of one input.

    Returns:
        makes the network when called with ``num_classes=K``.

    Example:
        >>> net_for(torch.Size([3, 32, 32]))(num_classes=10)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    if _is_image(shape):
        return partial(StrideCNN, in_channels=shape[0], image_size=shape[1])
    return mlp_for(shape)


def default_nets(shape: torch.Size) -> list[Callable[[int], nn.Module]]:
    """One network with pooling, one with strides and one without convolutions; for other data three perceptrons.

    Args:
        shape: of one input.

    Example:
        >>> [net(num_classes=2)(torch.rand(1, 3, 8, 8)).shape for net in default_nets(torch.Size([3, 8, 8]))]
        [torch.Size([1, 2]), torch.Size([1, 2]), torch.Size([1, 2])]
    """
    if _is_image(shape):
        kinds: list[Callable[..., nn.Module]] = [PoolCNN, StrideCNN, MLP]
        return [partial(kind, in_channels=shape[0], image_size=shape[1]) for kind in kinds]
    return [mlp_for(shape, hidden) for hidden in _WIDTHS]


def mlp_for(shape: torch.Size, hidden: tuple[int, ...] | None = None) -> Callable[[int], nn.Module]:
    """A perceptron on flat inputs.

    Args:
        shape: of one input.
        hidden: widths of its layers; None: those of :class:`MLP`.

    Returns:
        makes the network when called with ``num_classes=K``.

    Example:
        >>> mlp_for(torch.Size([3]), (5,))(num_classes=2)(torch.rand(4, 3)).shape
        torch.Size([4, 2])
    """
    settings: dict[str, Any] = {} if hidden is None else {"hidden": hidden}
    return partial(MLP, in_channels=shape.numel(), image_size=1, **settings)


def _is_image(shape: torch.Size) -> bool:
    """Whether the convolutional networks take such inputs."""
    return len(shape) == 3 and shape[1] == shape[2] and shape[1] % 4 == 0
