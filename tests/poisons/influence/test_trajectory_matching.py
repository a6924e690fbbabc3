from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from lightning_poison.attacks import PGD
from lightning_poison.ensembles import TrainingRecipe
from lightning_poison.errors import UserError
from lightning_poison.nets import MLP
from lightning_poison.poisons import LabelFlips, NewClass, NextClass, TrajectoryMatching
from lightning_poison.poisons.influence import trajectory_matching
from lightning_poison.poisons.influence.trajectory_matching import matching_scores
from tests.poisons.golden import check_golden, golden_data, nearest_mean_network

RECIPE = TrainingRecipe(epochs=7)


@pytest.fixture(scope="module")
def digits():
    data = golden_data(200)
    return replace(data, network=nearest_mean_network(data))


def gradient(network, inputs, soft_labels):
    loss = -(soft_labels * torch.log_softmax(network(inputs), dim=1)).sum() / len(inputs)
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(network.parameters()))])


def test_scores_are_the_slope_of_the_matching_loss():
    torch.manual_seed(0)
    network = MLP(3, 2, 1, hidden=(5,))
    inputs, labels = torch.rand(12, 2), torch.arange(12) % 3
    new_labels = (labels + 1) % 3
    target = torch.rand(20, 2), torch.arange(20) % 3
    found = matching_scores(network, (inputs, labels), target, inputs, labels, new_labels)
    double = network.double()
    expert = gradient(double, target[0].double(), one_hot(target[1], 3))

    def loss(soft_labels):
        return float((gradient(double, inputs.double(), soft_labels) - expert).square().sum() / expert.square().sum())

    for row in range(12):
        move = torch.zeros(12, 3, dtype=torch.float64)
        move[row, new_labels[row]], move[row, labels[row]] = 1e-5, -1e-5
        clean = one_hot(labels, 3).double()
        slope = (loss(clean + move) - loss(clean - move)) / 2e-5
        assert float(found[row]) == pytest.approx(-slope * 12 / 2, rel=1e-3, abs=1e-5)


def test_the_expert_learns_the_clean_points_and_the_perturbed_copies(digits, monkeypatch):
    seen = []
    original = trajectory_matching.train_networks

    def spy(net, inputs, labels, *rest, **options):
        seen.append((inputs, labels))
        return original(net, inputs, labels, *rest, **options)

    monkeypatch.setattr(trajectory_matching, "train_networks", spy)
    selector = TrajectoryMatching(per_class=1, classes=[3], recipe=RECIPE, attack=PGD(eps=0.3, steps=5))
    flips = LabelFlips(selector, NextClass()).craft(digits, 0)
    assert flips.old_label.tolist() == [3]
    inputs, labels = seen[0]
    threes = digits.labels == 3
    assert torch.equal(inputs[:200], digits.inputs)
    assert torch.equal(labels[:200], digits.labels)
    assert labels[200:].tolist() == [4] * int(threes.sum())
    moved = (inputs[200:] - digits.inputs[threes]).abs()
    assert 0.05 < float(moved.max()) <= 0.3 + 1e-6
    assert float((digits.network(inputs[200:]).argmax(dim=1) == 4).double().mean()) > 0.5


@pytest.mark.parametrize(
    ("epochs", "checkpoints", "expected"),
    [
        *((7, 1, [6]), (7, 3, [2, 4, 6]), (7, 7, list(range(7))), (7, 20, list(range(7)))),
        (62, 14, [4, 8, 13, 17, 22, 26, 30, 35, 39, 44, 48, 53, 57, 61]),  # 30: half of the checkpoints, half of 62
    ],
)
def test_epochs_that_are_looked_at(digits, monkeypatch, epochs, checkpoints, expected):
    looked = []

    class Trained:
        loss = 0.0

    def train(*_, after_epoch, **__):
        for epoch in range(epochs):
            network = nn.Linear(1, 1)
            network.epoch = epoch
            after_epoch(epoch, [network])
        return [Trained]

    monkeypatch.setattr(trajectory_matching, "train_networks", train)
    monkeypatch.setattr(
        trajectory_matching,
        "matching_scores",
        lambda network, clean, target, inputs, *_: looked.append(network.epoch) or torch.zeros(len(inputs)).double(),
    )
    recipe = TrainingRecipe(epochs=epochs)
    LabelFlips(TrajectoryMatching(per_class=1, recipe=recipe, checkpoints=checkpoints)).craft(digits, 0)
    assert looked == expected


def test_the_same_seed_gives_the_same_flips_and_a_new_class_is_possible(digits):
    selector = TrajectoryMatching(per_class=2, recipe=TrainingRecipe(epochs=3), checkpoints=2)
    state = torch.get_rng_state()
    first = LabelFlips(selector, NewClass()).craft(digits, 0)
    assert first.new_label.tolist() == [10] * 20
    assert torch.equal(state, torch.get_rng_state())
    assert LabelFlips(selector, NewClass()).craft(replace(digits), 0).same_flips(first)
    with pytest.raises(UserError, match="checkpoints must be an integer of at least 1"):
        TrajectoryMatching(checkpoints=0)


def test_golden(digits):
    selector = TrajectoryMatching(per_class=1, net=partial(MLP, image_size=8), recipe=TrainingRecipe(epochs=2))
    check_golden("TrajectoryMatching", LabelFlips(selector), digits)
