"""Two strided convolutions."""

from __future__ import annotations

from torch import nn

from lightning_poison.nets.base import SmallNet
from lightning_poison.nets.shape import check_image_size

__all__ = ["StrideCNN"]


class StrideCNN(SmallNet):
    """Two 5x5 convolutions of stride 2 with ReLU, then one hidden layer: smaller and faster than pooling.

    Args:
        num_classes: number of logits.
        in_channels: channels of the images.
        image_size: height and width in pixels, a multiple of 4.
        width: channels of the first convolution; the second has twice as many.
        hidden: neurons of the hidden layer.

    Example:
        >>> import torch
        >>> StrideCNN(num_classes=3, image_size=8)(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self, num_classes: int = 10, in_channels: int = 1, image_size: int = 28, width: int = 8, hidden: int = 64
    ) -> None:
        super().__init__()
        check_image_size(image_size, 4)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * (image_size // 4) ** 2, hidden),
            nn.ReLU(),
        )
        self.head = nn.Linear(hidden, num_classes)
