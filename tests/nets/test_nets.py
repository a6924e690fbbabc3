from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_poison.errors import UserError
from lightning_poison.nets import MLP, Normalize, PoolCNN, StrideCNN


@pytest.mark.parametrize("net", [PoolCNN, StrideCNN, MLP])
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (1, 8)])
def test_shapes(net: type[nn.Module], channels: int, size: int) -> None:
    logits = net(num_classes=7, in_channels=channels, image_size=size)(torch.rand(2, channels, size, size))
    assert logits.shape == (2, 7)


def test_the_networks_are_those_of_the_prototypes() -> None:
    def count(net: nn.Module) -> int:
        return sum(parameter.numel() for parameter in net.parameters())

    pool = 16 * 26 + 32 * (16 * 25 + 1) + 100 * (32 * 49 + 1) + 10 * 101
    stride = 8 * 26 + 16 * (8 * 25 + 1) + 64 * (16 * 49 + 1) + 10 * 65
    assert count(PoolCNN()) == pool
    assert count(StrideCNN()) == stride
    assert count(MLP(hidden=())) == 10 * 785


@pytest.mark.parametrize("size", [0, 2, 9])
def test_sizes_that_cannot_be_halved(size: int) -> None:
    with pytest.raises(UserError, match="image_size must be a multiple of 4"):
        PoolCNN(image_size=size)


def test_normalize_is_per_channel() -> None:
    images = torch.rand(2, 3, 4, 4)
    mean, std = [0.1, 0.2, 0.3], [1.0, 2.0, 4.0]
    out = Normalize(mean, std)(images)
    for channel in range(3):
        assert torch.allclose(out[:, channel], (images[:, channel] - mean[channel]) / std[channel])
    assert Normalize([0.5], [0.5])(images.bfloat16()).dtype == torch.bfloat16


def test_normalize_refuses() -> None:
    with pytest.raises(UserError, match="std must be positive"):
        Normalize([0.5], [0.0])
    with pytest.raises(UserError, match="one entry a channel"):
        Normalize([0.5], [1.0, 1.0])
