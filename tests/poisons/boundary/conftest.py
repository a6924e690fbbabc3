"""Images in [0, 1] and vectors beyond, with a network each."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_poison.poisons import TrainingSet
from tests.poisons.golden import golden_data, nearest_mean_network


@pytest.fixture(scope="module")
def digits() -> TrainingSet:
    data = golden_data()
    return replace(data, network=nearest_mean_network(data))


@pytest.fixture
def vectors() -> TrainingSet:
    """Three Gaussian classes in four dimensions, not in [0, 1], and a linear network."""
    stream = torch.Generator().manual_seed(1)
    labels = torch.arange(90) % 3
    centres = 6 * torch.eye(3, 4)
    inputs = centres[labels] + torch.randn(90, 4, generator=stream)
    head = nn.Linear(4, 3)
    head.load_state_dict({"weight": centres, "bias": torch.zeros(3)})
    return TrainingSet(labels, 3, dataset=TensorDataset(inputs, labels), network=head)
