"""A multilayer perceptron on the flattened input."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from lightning_poison.nets.base import SmallNet

__all__ = ["MLP"]


class MLP(SmallNet):
    """Fully connected layers with ReLU between them.

    Args:
        num_classes: number of logits.
        in_channels: channels of the images (1 for plain vectors).
        image_size: height and width in pixels.
        hidden: neurons of each hidden layer, first to last; none makes the network linear.

    Example:
        >>> import torch
        >>> MLP(num_classes=3, image_size=8, hidden=(16,))(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        hidden: Sequence[int] = (256, 256),
    ) -> None:
        super().__init__()
        widths = [in_channels * image_size**2, *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for narrow, wide in pairwise(widths):
            layers += [nn.Linear(narrow, wide), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], num_classes)
