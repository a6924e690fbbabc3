"""A small problem."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_poison.poisons import TrainingSet


@pytest.fixture(scope="module")
def small() -> TrainingSet:
    """Three overlapping classes in [0, 1]^2 and a linear network, so that its last layer sees the inputs themselves."""
    stream = torch.Generator().manual_seed(5)
    labels = torch.arange(60) % 3
    centres = torch.tensor([[0.3, 0.3], [0.7, 0.3], [0.5, 0.7]])
    inputs = (centres[labels] + 0.15 * torch.randn(60, 2, generator=stream)).clamp(0, 1)
    network = nn.Linear(2, 3)
    network.load_state_dict({"weight": centres, "bias": -centres.square().sum(dim=1) / 2})
    return TrainingSet(labels, 3, dataset=TensorDataset(inputs, labels), network=network)
