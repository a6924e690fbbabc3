from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from lightning_poison.errors import UserError
from lightning_poison.nets import MLP, DeepCNN, Normalize, PoolCNN, StrideCNN
from lightning_poison.nets.building import build_net, logits_of


@pytest.mark.parametrize("net", [PoolCNN, StrideCNN, DeepCNN, MLP])
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
    deep = 8 * 10 + 16 * (8 * 9 + 1) + 16 * (16 * 9 + 1) + 32 * (16 * 9 + 1) + 32 * (32 * 9 + 1)
    assert count(DeepCNN()) == deep + 64 * (32 * 49 + 1) + 10 * 65


@pytest.mark.parametrize("size", [0, 2, 9])
def test_sizes_that_cannot_be_halved(size: int) -> None:
    with pytest.raises(UserError, match="image_size must be a multiple of 4"):
        PoolCNN(image_size=size)
    with pytest.raises(UserError, match="image_size must be a multiple of 4"):
        DeepCNN(image_size=size)


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


def test_a_network_is_built_with_its_number_of_classes() -> None:
    built = nn.Linear(2, 5)
    assert build_net(built, None) is built
    assert logits_of(build_net(MLP, 4), 4) == 4
    assert logits_of(built, None) == 5


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: build_net(MLP, None), "num_classes is needed"),
        (lambda: build_net(lambda num_classes: num_classes, 3), "net must make a torch.nn.Module, got int"),
        (lambda: logits_of(nn.ReLU(), None), "pass num_classes=K"),
        (lambda: logits_of(nn.Linear(2, 5), 4), "has 5 outputs"),
        (lambda: logits_of(nn.ReLU(), 1), "num_classes must be an integer of at least 2"),
    ],
)
def test_networks_that_do_not_fit(attempt: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        attempt()


def test_signals_keep_their_size_through_the_deep_network() -> None:
    sizes = []
    for seed in range(20):
        torch.manual_seed(seed)
        values = torch.randn(4, 1, 28, 28)
        for layer in DeepCNN().features[:10]:
            values = layer(values)
            if isinstance(layer, nn.Conv2d):
                sizes.append(float(values.detach()[..., 2:-2, 2:-2].square().mean()))
    # He's variances make the mean square twice the input's, layer after layer; zeros beyond the edge take some off
    for layer_sizes in torch.tensor(sizes).view(20, 5).mean(dim=0):
        assert 1.2 < layer_sizes < 2.8
