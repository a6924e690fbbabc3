from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_poison.ensembles import TrainingRecipe
from lightning_poison.errors import UserError
from lightning_poison.poisons import ForgettingEvents, HighestLoss, LabelFlips, ToClass
from tests.poisons.golden import check_golden, golden_data, nearest_mean_network

RECIPE = TrainingRecipe(epochs=4, lr=5e-3)


@pytest.fixture
def digits():
    data = golden_data()
    return replace(data, network=nearest_mean_network(data))


def test_the_points_of_highest_loss_are_flipped(digits):
    losses = [
        float(cross_entropy(digits.network(point[None]).double(), label[None]))
        for point, label in zip(digits.inputs, digits.labels, strict=True)
    ]
    flips = LabelFlips(HighestLoss(per_class=3, classes=[2, 5]), ToClass(0)).craft(digits, 0)
    for label in (2, 5):
        own = sorted((row for row in range(600) if int(digits.labels[row]) == label), key=lambda row: -losses[row])
        assert set(flips.index[flips.old_label == label].tolist()) == set(own[:3])


def remember(digits, selector, right, seed=0):
    """Let the selector look at made-up histories, (runs, epochs, n)."""
    key = ("forgetting", selector.net, selector.recipe, selector.runs, seed)
    digits.remembered(key, lambda: torch.tensor(right).bool().permute(0, 2, 1))


def test_never_right_comes_before_often_forgotten_before_often_wrong(digits):
    data = replace(digits, labels=torch.zeros(6, dtype=torch.int64), num_classes=2)
    history = [[[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1], [1, 0, 1, 1], [0, 0, 1, 1]]]
    order = [2, 1, 4, 3, 5, 0]
    for budget in range(1, 7):
        selector = ForgettingEvents(count=budget)
        fresh = replace(data)
        remember(fresh, selector, history)
        assert LabelFlips(selector).craft(fresh, 0).index.tolist() == sorted(order[:budget])


def test_events_of_several_runs_add_up_and_ties_go_to_the_first(digits):
    data = replace(digits, labels=torch.zeros(4, dtype=torch.int64), num_classes=2)
    one = [[1, 0, 1, 1], [1, 0, 1, 0], [1, 0, 1, 0], [1, 1, 1, 1]]
    other = [[1, 0, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    selector = ForgettingEvents(count=2, runs=2)
    remember(data, selector, [one, other])
    assert LabelFlips(selector).craft(data, 0).index.tolist() == [0, 1]


def test_a_run_of_its_own(digits):
    selector = ForgettingEvents(per_class=2, recipe=RECIPE, runs=2)
    state = torch.get_rng_state()
    flips = LabelFlips(selector).craft(digits, 0)
    assert flips.old_label.bincount().tolist() == [2] * 10
    assert torch.equal(state, torch.get_rng_state())
    assert LabelFlips(selector).craft(replace(digits), 0).same_flips(flips)
    hard = LabelFlips(HighestLoss(per_class=20)).craft(digits, 0)
    shared = len(set(flips.index.tolist()) & set(hard.index.tolist()))
    assert shared >= 10  # of 20; 200 of 600 points at random share 6.7


def test_arguments_that_cannot_be_meant():
    with pytest.raises(UserError, match="runs must be an integer of at least 1"):
        ForgettingEvents(runs=0)
    with pytest.raises(UserError, match="epochs must be at least 2 for a point to be forgotten, got 1"):
        ForgettingEvents(recipe=TrainingRecipe(epochs=1))


def test_golden(digits):
    check_golden("HighestLoss", LabelFlips(HighestLoss(per_class=2)), digits)
    histories = torch.rand(1, 600, 8, generator=torch.Generator().manual_seed(0)) < 0.7
    selector = ForgettingEvents(per_class=2)
    remember(digits, selector, histories.tolist())
    check_golden("ForgettingEvents", LabelFlips(selector), digits)
