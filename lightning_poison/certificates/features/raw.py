"""The input itself as features."""

from __future__ import annotations

from torch import Tensor

from lightning_poison.certificates.features.base import LabelFreeFeatures

__all__ = ["RawFeatures"]


class RawFeatures(LabelFreeFeatures):
    """Inputs flattened to one vector a point, (N, d); ``UnchangedInputs`` leaves them in their shape.

    Example:
        >>> import torch
        >>> RawFeatures().transform(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 64])
    """

    def transform(self, inputs: Tensor) -> Tensor:
        """Flatten (N, ...) to (N, d)."""
        return inputs.flatten(1)

    def describe(self) -> str:
        """The map in a few words."""
        return "raw inputs"
