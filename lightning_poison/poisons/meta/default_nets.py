"""The architectures of surrogates when the user names none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_poison.errors import UserError
from lightning_poison.functional.forward_mode import jvp
from lightning_poison.functional.fresh_networks import fresh_network
from lightning_poison.nets import MLP, PoolCNN, StrideCNN
from lightning_poison.nets.building import build_net

__all__ = ["default_nets", "fresh_surrogate"]

_WIDTHS = ((256, 256), (512,), (128, 128, 128))


def default_nets(shape: torch.Size) -> list[Callable[[int], nn.Module]]:
    """One network with pooling, one with strides and one without convolutions; for other data three perceptrons.

    Args:
        shape: of one input.

    Example:
        >>> [net(num_classes=2)(torch.rand(1, 3, 8, 8)).shape for net in default_nets(torch.Size([3, 8, 8]))]
        [torch.Size([1, 2]), torch.Size([1, 2]), torch.Size([1, 2])]
    """
    if len(shape) == 3 and shape[1] == shape[2] and shape[1] % 4 == 0:
        kinds: list[Callable[..., nn.Module]] = [PoolCNN, StrideCNN, MLP]
        return [partial(kind, in_channels=shape[0], image_size=shape[1]) for kind in kinds]
    return [partial(MLP, in_channels=shape.numel(), image_size=1, hidden=hidden) for hidden in _WIDTHS]


def fresh_surrogate(net: Callable[[int], nn.Module], seed: int, sample: Tensor) -> nn.Module:
    """A network with two outputs at its initial weights, see :func:`fresh_network`.

    Args:
        net: makes it when called with ``num_classes=2``.
        seed: of the weights.
        sample: shape (N, ...): some inputs, which it must take.

    Raises:
        UserError: it does not, or its weights are not those of the seed.
    """
    network = fresh_network(partial(build_net, net, 2), seed, name="each of nets")
    try:
        with torch.no_grad():
            scores = network(sample)
            weights = dict(network.named_parameters())
            jvp(lambda moved: functional_call(network, moved, (sample,)), (weights,), (weights,))
    except NotImplementedError as error:
        raise UserError(
            f"the surrogate {type(network).__name__} has an operation without a forward derivative "
            f"({str(error).partition(chr(10))[0][:80]}); name networks of plain layers"
        ) from error
    except (RuntimeError, ValueError) as error:
        shape, reason = tuple(sample.shape[1:]), str(error).partition("\n")[0]
        raise UserError(
            f"the surrogate {type(network).__name__} cannot take inputs of shape {shape} ({reason}); "
            "name networks for this data"
        ) from error
    if scores.shape != (len(sample), 2):
        raise UserError(
            f"the surrogate {type(network).__name__} must give 2 scores when made with num_classes=2, got shape "
            f"{tuple(scores.shape)} for {len(sample)} inputs"
        )
    return network
