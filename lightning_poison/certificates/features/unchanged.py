"""The input as it is, images in their shape."""

from __future__ import annotations

from torch import Tensor

from lightning_poison.certificates.features.base import LabelFreeFeatures

__all__ = ["UnchangedInputs"]


class UnchangedInputs(LabelFreeFeatures):
    """Inputs in their own shape, for learners that are networks; ``RawFeatures`` flattens them to vectors.

    Example:
        >>> import torch
        >>> UnchangedInputs().transform(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 1, 8, 8])
    """

    def transform(self, inputs: Tensor) -> Tensor:
        """(N, ...) as they are."""
        return inputs

    def describe(self) -> str:
        """The map in a few words."""
        return "unchanged inputs"
