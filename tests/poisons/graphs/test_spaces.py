"""Spaces against NumPy and hand-made networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_poison.errors import UserError
from lightning_poison.nets import MLP, PoolCNN, StrideCNN
from lightning_poison.poisons import FeatureSpace, InputSpace, PCASpace, TrainingSet
from lightning_poison.poisons.graphs import spaces as module
from lightning_poison.poisons.surrogates.trained import penultimate_features
from tests.poisons.golden import golden_data
from tests.poisons.graphs.data import digits_network, vectors


def test_input_space_is_the_inputs_flattened():
    data = golden_data(20)
    assert InputSpace().points(data, 0).equal(data.inputs.view(20, 64))


@pytest.mark.parametrize("dim", [1, 5, 64, 500])
def test_pca_space_is_that_of_the_singular_values_of_all_points(dim):
    data = golden_data(300)
    rows = data.inputs.view(300, 64).double().numpy()
    centred = rows - rows.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    expected = (left * sizes)[:, :dim]
    found = PCASpace(dim).points(data, 0)
    assert found.shape == (300, min(dim, 64))
    assert np.allclose(np.abs(found.numpy()), np.abs(expected), atol=1e-6)
    assert PCASpace(dim).points(data, 1) is found
    assert PCASpace(2).points(data, 0) is not found


def test_pca_of_many_batches_is_that_of_one(monkeypatch):
    data = golden_data(100)
    whole = PCASpace(4).points(data, 0)
    monkeypatch.setattr(module, "_CHUNK", 7)
    assert torch.allclose(PCASpace(4).points(golden_data(100), 0).abs(), whole.abs(), atol=1e-9)


@pytest.mark.parametrize("net", [MLP(10, 1, 8, hidden=(16, 5)), StrideCNN(image_size=8), PoolCNN(image_size=8)])
def test_features_are_what_the_head_multiplies(net):
    inputs = golden_data(30).inputs
    features = penultimate_features(net, inputs)
    assert torch.allclose(features, net.features(inputs), atol=1e-6)
    assert torch.allclose(net.head(features), net(inputs), atol=1e-6)
    assert not features.requires_grad
    assert not net.head._forward_hooks
    assert net.training
    assert all(weight.requires_grad for weight in net.parameters())


def test_features_come_from_the_layer_that_runs_last_not_the_one_defined_last():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)
            self.body = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.body(x)).log_softmax(1)

    net = Odd()
    assert torch.allclose(penultimate_features(net, torch.ones(2, 4)), net.body(torch.ones(2, 4)))


def test_a_network_without_a_linear_end_is_named():
    for net in (
        nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 11), Cut()),
    ):
        with pytest.raises(
            UserError, match="must end in a linear layer, got Sequential, which does not; use InputSpace"
        ):
            penultimate_features(net, golden_data(3).inputs)


class Cut(nn.Module):
    def forward(self, x):
        return x[:, :10]


def test_feature_space_takes_the_network_that_came_along():
    data = golden_data(200)
    net = digits_network(data)
    given = TrainingSet(data.labels, 10, dataset=data.dataset, network=net)
    features = FeatureSpace().points(given, 0)
    assert torch.allclose(features, net[:2](data.inputs))
    assert FeatureSpace().points(given, 0) is features


@pytest.mark.slow
def test_feature_space_trains_a_network_where_there_is_none():
    data = vectors(count=300)
    features = FeatureSpace().points(data, 0)
    assert features.shape == (300, 256)
    assert FeatureSpace().points(data, 0) is features


def test_mistakes_are_named():
    with pytest.raises(UserError, match="dim must be an integer of at least 1"):
        PCASpace(0)
    wide = TrainingSet(torch.tensor([0, 1]), 2, dataset=TensorDataset(torch.rand(2, 10_001), torch.tensor([0, 1])))
    with pytest.raises(
        UserError, match="PCASpace takes inputs of at most 10,000 numbers, got 10,001; use FeatureSpace"
    ):
        PCASpace().points(wide, 0)
    untrained = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(untrained[1].weight)
    data = golden_data(100)
    with pytest.raises(UserError, match="no more than guessing"):
        FeatureSpace().points(TrainingSet(data.labels, 10, dataset=data.dataset, network=untrained), 0)
