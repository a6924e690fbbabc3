"""A linear victim, a small network, and a trained one."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn


class Linear(nn.Module):
    """Scores ``x W^T + b`` of flattened inputs."""

    def __init__(self, weights, bias):
        super().__init__()
        self.weights, self.bias = nn.Parameter(weights), nn.Parameter(bias)

    def forward(self, inputs):
        return inputs.flatten(1) @ self.weights.T + self.bias


@pytest.fixture
def linear():
    generator = torch.Generator().manual_seed(0)
    return Linear(torch.randn(2, 12, generator=generator).double(), torch.zeros(2, dtype=torch.float64))


@pytest.fixture
def middling():
    """Points far from the box's border, (40, 1, 3, 4), and labels in {0, 1}."""
    generator = torch.Generator().manual_seed(1)
    return (
        (0.35 + 0.3 * torch.rand(40, 1, 3, 4, generator=generator)).double(),
        torch.randint(2, (40,), generator=generator),
    )


def small_network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout2d(0.3),
            nn.Conv2d(6, 8, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(72, 10),
        )


@pytest.fixture
def network():
    """Untrained, in train mode, one weight frozen, one part in eval mode: flags worth restoring."""
    net = small_network()
    net[0].weight.requires_grad_(False)
    net[1].eval()
    return net


@pytest.fixture(scope="session")
def digits():
    data = load_digits()
    return torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)


@pytest.fixture(scope="session")
def trained(digits):
    """A small network that knows the first 1,200 digits; in eval mode."""
    inputs, labels = digits
    net = small_network(seed=1)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(12):
            for rows in torch.randperm(1200).split(100):
                loss = nn.functional.cross_entropy(net(inputs[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return net.eval()


def snapshot(net):
    """Everything that a measurement must leave alone."""
    return {
        "state": {name: value.clone() for name, value in net.state_dict().items()},
        "modes": [part.training for part in net.modules()],
        "flags": [parameter.requires_grad for parameter in net.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        "random": torch.get_rng_state(),
    }


def assert_unchanged(net, before):
    after = snapshot(net)
    assert after["modes"] == before["modes"]
    assert after["flags"] == before["flags"]
    assert after["random"].equal(before["random"])
    assert all(after["state"][name].equal(value) for name, value in before["state"].items())
    for new, old in zip(after["gradients"], before["gradients"], strict=True):
        assert (new is None) == (old is None)
        assert new is None or new.equal(old)


@pytest.fixture
def unchanged():
    """A function that runs something and checks that it left a network as it was, whether or not it raised."""

    def check(net, run):
        before = snapshot(net)
        try:
            return run()
        finally:
            assert_unchanged(net, before)

    return check
