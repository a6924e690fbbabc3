"""From what a user names as the network to a module with a known number of logits that scales its own inputs.

Networks are also run from here over many inputs, wherever they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_poison.attacks import frozen_eval
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer, kind_shown

__all__ = [
    "Normalize",
    "SmallNet",
    "build_net",
    "check_image_size",
    "check_net_maker",
    "device_of",
    "in_parts",
    "logits_of",
]

_CHUNK = 1000  # inputs of one forward pass


# --- from a name to a module ------------------------------------------------------------------------------------------


def build_net(net: Callable[[int], nn.Module], num_classes: int | None) -> nn.Module:
    """Return ``net`` if it is a module, else what it makes when called with ``num_classes``.

    Raises:
        UserError: it is a function and ``num_classes`` is unknown, it takes no ``num_classes``, or it makes no module.

    Example:
        >>> build_net(lambda num_classes: nn.Linear(4, num_classes), 3)
        Linear(in_features=4, out_features=3, bias=True)
    """
    if isinstance(net, nn.Module):
        return net
    if num_classes is None:
        raise UserError("num_classes is needed to build the network; pass num_classes=K or a network that is built")
    num_classes = check_integer("num_classes", num_classes, minimum=1)
    try:
        built = net(num_classes=num_classes)  # type: ignore[call-arg]  # by name: torchvision takes it as a keyword only
    except TypeError as error:
        if "unexpected keyword argument 'num_classes'" not in str(error):
            raise
        raise UserError(
            f"net must take num_classes=K, got one that does not ({error}); give its constructor an argument "
            "num_classes, or name a function of num_classes that makes it"
        ) from error
    if not isinstance(built, nn.Module):
        raise UserError(f"net must make a torch.nn.Module, got {type(built).__name__}")
    return built


def check_net_maker(net: Any, name: str = "net") -> None:
    """Refuse what cannot make a new network: None will do, a network that is made already will not.

    Raises:
        UserError: it cannot be called, or is a network.

    Example:
        >>> check_net_maker(nn.Linear(4, 2))
        Traceback (most recent call last):
        lightning_poison.errors.UserError: net must make a network when called with num_classes=K, got a network that \
is made already; name a class such as MLP
    """
    if net is not None and (not callable(net) or isinstance(net, nn.Module)):
        what = "a network that is made already" if isinstance(net, nn.Module) else kind_shown(net)
        raise UserError(
            f"{name} must make a network when called with num_classes=K, got {what}; name a class such as MLP"
        )


def logits_of(net: nn.Module, num_classes: int | None) -> int:
    """The number of logits: ``num_classes``, checked against the network's last linear layer where it has one.

    Raises:
        UserError: the two differ, or neither is known.

    Example:
        >>> logits_of(nn.Linear(4, 3), None)
        3
    """
    linear = [layer.out_features for layer in net.modules() if isinstance(layer, nn.Linear)]
    if num_classes is None:
        if not linear:
            raise UserError("num_classes cannot be read off the network, which has no linear layer; pass num_classes=K")
        return linear[-1]
    num_classes = check_integer("num_classes", num_classes, minimum=2)
    if linear and linear[-1] != num_classes:
        raise UserError(
            f"num_classes={num_classes} but the network's last linear layer has {linear[-1]} outputs; make them equal"
        )
    return num_classes


# --- layers -----------------------------------------------------------------------------------------------------------


class SmallNet(nn.Module):
    """A network of this package: ``features`` with a linear ``head`` on them.

    The command line looks up short names (``--model.net=MLP``) among these first: other packages have an ``MLP`` too.
    """

    features: nn.Module
    head: nn.Module

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, ``num_classes``)."""
        logits: Tensor = self.head(self.features(inputs))
        return logits


def check_image_size(image_size: int, multiple: int) -> None:
    """Refuse a size that repeated halving does not divide.

    Args:
        image_size: height and width in pixels.
        multiple: what it must be a positive multiple of.

    Raises:
        UserError: it is not.
    """
    if image_size < multiple or image_size % multiple:
        raise UserError(f"image_size must be a multiple of {multiple}, got {image_size}; pad or resize the images")


class Normalize(nn.Module):
    """(x - mean) / std per channel.

    Args:
        mean: one number, or one a channel, in pixel units of [0, 1].
        std: likewise; positive.

    Raises:
        UserError: a standard deviation is not positive, or the lengths differ.

    Example:
        >>> Normalize([0.5], [0.25])(torch.ones(1, 1, 2, 2)).unique()
        tensor([2.])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)) -> None:
        super().__init__()
        if len(mean) != len(std) or not len(mean):
            raise UserError(f"mean and std must have one entry a channel each, got {len(mean)} and {len(std)}")
        if min(std) <= 0:
            raise UserError(f"std must be positive, got {list(std)}; 1.0 leaves the pixels as they are")
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32))
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32))

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise a batch.

        Args:
            inputs: shape (N, C, ...), floating point, pixels in [0, 1].

        Returns:
            same shape and dtype.
        """
        shape = (-1,) + (1,) * (inputs.ndim - 2)
        return (inputs - self.mean.to(inputs.dtype).view(shape)) / self.std.to(inputs.dtype).view(shape)


# --- running a network ------------------------------------------------------------------------------------------------


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
