"""Five small convolutions."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from lightning_poison.nets.base import SmallNet
from lightning_poison.nets.shape import check_image_size

__all__ = ["DeepCNN"]


class DeepCNN(SmallNet):
    """Five 3x3 convolutions with ReLU, the second and the fourth of stride 2, then one hidden layer.

    It is deeper than :class:`StrideCNN` and :class:`PoolCNN`, shares no layer's shape with them, and costs half as
    many multiplications as the latter. Its hidden layers start from the variances of He et al., "Delving Deep into
    Rectifiers", ICCV 2015, equation (10): torch's own are so small for this depth that the network fits its last few
    labels, which are the flipped ones, more than twice as late.

    Args:
        num_classes: number of logits.
        in_channels: channels of the images.
        image_size: height and width in pixels, a multiple of 4.
        width: channels of the first convolution; the next two have twice, the last two four times as many.
        hidden: neurons of the hidden layer.

    Example:
        >>> import torch
        >>> DeepCNN(num_classes=3, image_size=8)(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self, num_classes: int = 10, in_channels: int = 1, image_size: int = 28, width: int = 8, hidden: int = 64
    ) -> None:
        super().__init__()
        check_image_size(image_size, 4)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(4 * width, 4 * width, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * width * (image_size // 4) ** 2, hidden),
            nn.ReLU(),
        )
        for layer in self.features.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(cast("Tensor", layer.bias))
        self.head = nn.Linear(hidden, num_classes)
