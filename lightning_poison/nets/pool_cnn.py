"""Two convolutions with max pooling."""

from __future__ import annotations

from torch import nn

from lightning_poison.nets.base import SmallNet
from lightning_poison.nets.shape import check_image_size

__all__ = ["PoolCNN"]


class PoolCNN(SmallNet):
    """Two 5x5 convolutions, each with 2x2 max pooling and ReLU, then one hidden layer.

    ReLU after pooling gives the same values and gradients as before it, at a quarter of its cost.

    Args:
        num_classes: number of logits.
        in_channels: channels of the images.
        image_size: height and width in pixels, a multiple of 4.
        width: channels of the first convolution; the second has twice as many.
        hidden: neurons of the hidden layer.

    Example:
        >>> import torch
        >>> PoolCNN(num_classes=3, image_size=8)(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self, num_classes: int = 10, in_channels: int = 1, image_size: int = 28, width: int = 16, hidden: int = 100
    ) -> None:
        super().__init__()
        check_image_size(image_size, 4)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 5, padding=2),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 5, padding=2),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * (image_size // 4) ** 2, hidden),
            nn.ReLU(),
        )
        self.head = nn.Linear(hidden, num_classes)
