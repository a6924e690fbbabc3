"""Small problems whose trainings can be compared to the last digits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from lightning_poison.ensembles import TrainedNetwork
from lightning_poison.functional.random_streams import generator
from lightning_poison.nets import MLP, DeepCNN, PoolCNN, StrideCNN

__all__ = ["NETS", "ColumnNet", "doubles", "flipped", "points", "weights"]

NETS: dict[str, Callable[[int], nn.Module]] = {
    "stride": partial(StrideCNN, image_size=8, width=2, hidden=6),
    "pool": partial(PoolCNN, image_size=8, width=2, hidden=6),
    "deep": partial(DeepCNN, image_size=8, width=2, hidden=6),
    "mlp": partial(MLP, image_size=8, hidden=(6,)),
}


class ColumnNet(nn.Module):
    """One linear layer with whatever stands before it."""

    def __init__(self, num_classes: int, *before: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), *before, nn.Linear(64, num_classes))

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.layers(inputs)
        return scores


def doubles(net: Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
    """The network in float64, where ways of summing up agree to many digits."""

    def make(num_classes: int) -> nn.Module:
        return net(num_classes=num_classes).double()

    return make


def points(count: int = 37, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Images (count, 1, 8, 8), float64, with a bright row that tells the class."""
    draws = generator(5, "ensemble problems")
    labels = torch.randint(classes, (count,), generator=draws)
    images = torch.rand(count, 1, 8, 8, generator=draws, dtype=torch.float64) * 0.5
    images[torch.arange(count), 0, labels] += 0.5
    return images, labels


def flipped(labels: Tensor, members: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Labels (members, n) of which member e has its own e flipped, and which those are."""
    watched = torch.zeros(members, len(labels), dtype=torch.bool)
    for member in range(members):
        watched[member, 3 * member : 4 * member] = True
    return torch.where(watched, (labels + 1) % classes, labels), watched


def weights(networks: Iterable[TrainedNetwork]) -> list[Tensor]:
    return [torch.cat([weight.flatten() for weight in each.module.parameters()]) for each in networks]
