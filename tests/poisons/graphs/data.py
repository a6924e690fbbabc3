"""Small training sets for the tests of graph selectors."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_poison.poisons import TrainingSet

__all__ = ["digits_network", "vectors"]


def vectors(count: int = 90, width: int = 4, classes: int = 3, seed: int = 0, network=None) -> TrainingSet:
    """Blobs, one a class, with labels in a random order."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=stream)
    points = torch.randn(count, width, generator=stream) + 6 * nn.functional.one_hot(labels, width)
    return TrainingSet(labels, classes, "blobs", dataset=TensorDataset(points, labels), network=network)


def digits_network(training_set: TrainingSet) -> nn.Module:
    """Nearest class mean on coarse features: no training, and whole numbers, so that every machine agrees."""
    coarse = nn.Sequential(nn.AvgPool2d(2, divisor_override=1), nn.Flatten(), nn.Linear(16, 10))
    pooled = coarse[:2](training_set.inputs)
    means = torch.stack([pooled[training_set.labels == label].mean(0) for label in range(10)]).mul(16).round() / 16
    coarse[2].load_state_dict({"weight": 2 * means, "bias": -means.square().sum(1)})
    return coarse
