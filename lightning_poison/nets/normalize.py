"""Normalisation as a layer, so that everything outside the network sees pixels in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_poison.errors import UserError

__all__ = ["Normalize"]


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
