"""A user's own frozen network as features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_poison.certificates.features.base import LabelFreeFeatures

__all__ = ["FrozenFeatures"]


class FrozenFeatures(LabelFreeFeatures):
    """The outputs of a frozen feature extractor.

    Args:
        extractor: maps inputs (N, ...) to (N, d) or (N, ...), which is flattened. It is run in eval mode without
            gradients; its own modes come back afterwards.
        label_free: promise that the extractor was trained without the labels that are certified: on other data, or
            without labels. Where that cannot be promised the guarantee covers the head alone, and says so.

    Example:
        >>> FrozenFeatures(nn.Linear(4, 2)).end_to_end
        False
    """

    def __init__(self, extractor: nn.Module, label_free: bool = False) -> None:
        self.extractor = extractor
        self.end_to_end = bool(label_free)

    def transform(self, inputs: Tensor) -> Tensor:
        """Run the extractor on (N, ...)."""
        modes = {module: module.training for module in self.extractor.modules()}
        self.extractor.eval()
        try:
            with torch.no_grad():
                features: Tensor = self.extractor(inputs)
        finally:
            for module, mode in modes.items():
                module.training = mode
        return features.flatten(1)

    def describe(self) -> str:
        """The map in a few words."""
        return f"a frozen {type(self.extractor).__name__}"
