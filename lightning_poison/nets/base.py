"""The common base of the small networks."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["SmallNet"]


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
