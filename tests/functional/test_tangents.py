from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_poison.functional import tangents as module
from lightning_poison.functional.tangents import tangent_kernel, tangents
from lightning_poison.nets import MLP, PoolCNN, StrideCNN


def first(scores: torch.Tensor) -> torch.Tensor:
    return scores.flatten(1)[:, 0] - 2 * scores.flatten(1)[:, -1]


class Tied(nn.Module):
    """One layer used twice, one weight in two layers, one layer not used, and a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.other, self.unused = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.copy = nn.Linear(6, 6, bias=False)
        self.copy.weight = self.other.weight
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu_(self.twice(inputs.flatten(1)))
        return self.scale * self.copy(torch.tanh(self.other(self.twice(hidden))))


class UsedAgain(nn.Module):
    """Layers whose weights are used a second time by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear, self.last = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(18, 18), nn.Linear(18, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = functional.conv2d(torch.tanh(self.conv(inputs)), self.conv.weight, padding=1).flatten(1)
        return self.last(functional.linear(torch.tanh(self.linear(hidden)), self.linear.weight))


class BiasUsedAgain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.layer(inputs)) + self.layer.bias.square())


def normed(norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return nn.Sequential(norm(nn.Conv2d(2, 3, 3)), nn.ReLU(), nn.Flatten(), norm(nn.Linear(27, 4)), nn.Linear(4, 2))


NETWORKS = {
    "linear": (lambda: nn.Linear(6, 2), (6,)),
    "MLP": (lambda: MLP(3, 1, 4, hidden=(5, 4)), (1, 4, 4)),
    "stride": (lambda: StrideCNN(2, 2, 8, width=3, hidden=6), (2, 8, 8)),
    "pool": (lambda: PoolCNN(2, 1, 8, width=2, hidden=5), (1, 8, 8)),
    "in place": (lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(inplace=True), nn.Linear(4, 2, bias=False)), (6,)),
    "batch norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 2)),
        (2, 5, 5),
    ),
    "groups, same": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, groups=2, stride=2, dilation=1, padding=1),
            nn.Conv2d(4, 2, 3, padding="same"),
            nn.Conv2d(2, 2, (2, 1), padding=(1, 0), dilation=(1, 2), stride=(2, 1)),
            nn.Flatten(),
        ),
        (2, 5, 5),
    ),
    "matrices": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Flatten(), nn.Linear(6, 1)), (2, 4)),
    "tied": (Tied, (6,)),
    "used again": (UsedAgain, (2, 3, 3)),
    "bias used again": (BiasUsedAgain, (5,)),
    "weight norm by hooks": (lambda: normed(nn.utils.weight_norm), (2, 5, 5)),
    "spectral norm by hooks": (lambda: normed(nn.utils.spectral_norm), (2, 5, 5)),
    "weight norm": (lambda: normed(nn.utils.parametrizations.weight_norm), (2, 5, 5)),
}


def naive(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """A backward pass for each point."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    rows = []
    for point in inputs:
        slopes = torch.autograd.grad(first(network(point[None])).sum(), weights, allow_unused=True)
        pairs = zip(weights, slopes, strict=True)
        rows.append(torch.cat([(torch.zeros_like(w) if slope is None else slope).flatten() for w, slope in pairs]))
    return torch.stack(rows)


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    return make().eval(), torch.randn(7, *shape)


@pytest.mark.parametrize("name", NETWORKS)
def test_inner_products_of_naive_gradients(name):
    network, inputs = made(name)
    rows = naive(network, inputs)
    mine = tangents(network, inputs, first)
    expected = rows @ rows.T
    assert torch.allclose(mine.inner(mine), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["linear", "pool", "tied", "used again"])
@pytest.mark.parametrize("frozen", [0, 1])
def test_frozen_weights_have_no_part(name, frozen):
    network, inputs = made(name)
    for weight in list(network.parameters())[frozen::2]:
        weight.requires_grad_(False)
    rows = naive(network, inputs)
    mine = tangents(network, inputs, first)
    assert torch.allclose(mine.inner(mine), rows @ rows.T, rtol=1e-4, atol=1e-5 * float((rows @ rows.T).abs().max()))


def test_the_network_is_left_as_it_was():
    network, inputs = made("MLP")
    tangents(network, inputs, first)
    assert all(weight.grad is None for weight in network.parameters())
    assert not any(layer._forward_hooks for layer in network.modules())
    with torch.no_grad():
        tangents(network, inputs, first)


@pytest.mark.parametrize(("kept", "block"), [(2**30, 3), (400 * 4 * 2, 2), (1, 1), (2**30, 100)])
@pytest.mark.parametrize("same", [True, False])
def test_blocks_do_not_matter(monkeypatch, kept, block, same):
    monkeypatch.setattr(module, "_KEPT_BYTES", kept)
    monkeypatch.setattr(module, "_BLOCK_POINTS", block)
    network, inputs = made("MLP")
    others = inputs if same else inputs[:4].clone()
    rows = naive(network, inputs)
    kernel = tangent_kernel(inputs, others, lambda part: tangents(network, part, first))
    assert torch.allclose(kernel, rows @ rows[: len(others)].T, atol=1e-5)
    if same:
        assert torch.equal(kernel, kernel.T)


def test_nothing_gives_nothing():
    network, inputs = made("MLP")
    assert tangent_kernel(inputs[:0], inputs, lambda part: tangents(network, part, first)).shape == (0, 7)
    assert tangent_kernel(inputs, inputs[:0], lambda part: tangents(network, part, first)).shape == (7, 0)
