"""Which weights a Trainer's module has at the moment, and which it will be left with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

__all__ = ["evaluated_weights", "on_root_device", "weights_fingerprint"]

_BLOCK = 2**22  # entries that are multiplied at once
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_PRIME = 0x9E3779B97F4A7C15 - 2**64  # odd: no entry's change is lost modulo 2^64


def weights_fingerprint(module: nn.Module) -> int:
    """A number that is another one for other weights: of all parameters and floating-point buffers, to the last bit.

    It is a sum of the entries' bits, each times an odd number of its own, modulo 2^64: the same on every device and in
    any order of summation. Two different sets of weights agree by accident once in about 10^19 cases.

    Args:
        module: any module; what is not on this process (sharded or uninitialised) is left out.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> before = weights_fingerprint(net)
        >>> with torch.no_grad():
        ...     _ = net.weight[0, 0].add_(1e-3)
        >>> weights_fingerprint(net) == before
        False
    """
    total, place = 0, 1
    with torch.no_grad(), torch.inference_mode(False):
        for tensor in (*module.parameters(), *module.buffers()):
            if not _readable(tensor):
                continue
            bits = tensor.detach().contiguous().flatten().view(_BITS.get(tensor.element_size(), torch.uint8))
            for block in torch.split(bits, _BLOCK):
                odd = 2 * torch.arange(place, place + len(block), device=block.device) + 1
                total += int(((block.long() + 1) * odd * _PRIME).sum())
                place += len(block)
    return total % 2**64


def _readable(tensor: Tensor) -> bool:
    if tensor.is_meta or isinstance(tensor, (UninitializedBuffer, UninitializedParameter)) or not tensor.numel():
        return False
    return tensor.is_floating_point() and tensor.layout is torch.strided


@contextmanager
def evaluated_weights(trainer: Any, pl_module: nn.Module) -> Iterator[None]:
    """The weights that Lightning's weight averaging puts into the module for validation, for the length of a block.

    ``WeightAveraging`` (and ``EMAWeightAveraging``) validates the averaged weights and leaves them at the end of
    ``fit``; a measurement at the end of a training epoch is to be of the same ones. Without such a callback, and while
    the Trainer validates, nothing is changed.

    Args:
        trainer: while it fits.
        pl_module: its module.
    """
    averaging = [] if not trainer.training else [one for one in trainer.callbacks if _averages(one)]
    for callback in averaging:
        callback._swap_models(pl_module)
    try:
        yield
    finally:
        for callback in reversed(averaging):
            callback._swap_models(pl_module)


def _averages(callback: Any) -> bool:
    """Whether a callback is Lightning's weight averaging, with an average at hand."""
    return hasattr(callback, "_swap_models") and getattr(callback, "_average_model", None) is not None


@contextmanager
def on_root_device(trainer: Any, pl_module: Any) -> Iterator[None]:
    """The module where it was trained, for the length of a block: ``fit`` leaves it on the CPU."""
    before, device = pl_module.device, trainer.strategy.root_device
    pl_module.to(device)
    try:
        yield
    finally:
        pl_module.to(before)
