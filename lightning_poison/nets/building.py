"""From what a user names as the network to a module with a known number of logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer, kind_shown

__all__ = ["build_net", "check_net_maker", "logits_of"]


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
