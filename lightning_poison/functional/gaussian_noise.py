"""Gaussian noise from explicit streams, drawn where it is needed."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_poison.functional.random_streams import mix_seed

__all__ = ["fill_gaussian"]


def fill_gaussian(buffer: Tensor, std: float, seed: int, *keys: int | str) -> Tensor:
    """Overwrite a tensor with independent normal numbers of mean 0, on its own device.

    The numbers depend on the shape, the seed, the keys and the kind of device, and on nothing else.

    Args:
        buffer: any shape, float; kept in place, so that a loop needs no fresh memory.
        std: standard deviation.
        seed: the stream's seed.
        keys: more to tell streams apart.

    Returns:
        ``buffer``.

    Example:
        >>> noise = fill_gaussian(torch.empty(10_000), 0.5, seed=0)
        >>> round(float(noise.std()), 1), noise.equal(fill_gaussian(torch.empty(10_000), 0.5, 0))
        (0.5, True)
    """
    stream = torch.Generator(device=buffer.device).manual_seed(mix_seed(seed, *keys))
    return buffer.normal_(0, std, generator=stream)
