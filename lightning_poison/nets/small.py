"""Small networks: three that convolve, one that does not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from lightning_poison.nets.building import SmallNet, check_image_size

__all__ = ["MLP", "DeepCNN", "PoolCNN", "StrideCNN"]


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
