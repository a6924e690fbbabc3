from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from lightning_poison.ensembles import TrainingRecipe
from lightning_poison.errors import UserError
from lightning_poison.nets import MLP
from lightning_poison.poisons import (
    Candidates,
    FarthestFromBoundary,
    LabelFlips,
    NearestToBoundary,
    NewClass,
    NextClass,
    PathLengthBucket,
    RandomOther,
    ToClass,
    TrainingSet,
)
from lightning_poison.poisons.boundary import path_lengths
from lightning_poison.poisons.surrogates import TrainedSurrogate
from tests.counted_gradients import CountedGradients
from tests.poisons.boundary.walked_by_hand import by_hand
from tests.poisons.golden import golden_data, nearest_mean_network


@pytest.mark.parametrize("target", ["relabelled", "untargeted"])
@pytest.mark.parametrize("relabel", [NextClass(), ToClass(1), NewClass(), RandomOther()])
def test_lengths_are_those_of_the_naive_loop(vectors, target, relabel):
    selector = FarthestFromBoundary(target=target, step=0.5, max_steps=12)
    candidates = Candidates.of(vectors, relabel, 0)
    found = selector.distances(candidates, candidates.index, seed=0)
    expected = by_hand(vectors, selector, relabel)
    assert {length for length, _ in expected.values()} != {0}
    for row, length, reached in zip(
        candidates.index.tolist(), found.length.tolist(), found.reached.tolist(), strict=True
    ):
        assert (length, reached) == expected[row]


def test_other_targets_are_not_mistaken_for_known_ones(vectors):
    for relabel in (ToClass(0), ToClass(1), ToClass(2), ToClass(0)):
        candidates = Candidates.of(vectors, relabel, 0)
        selector = FarthestFromBoundary(step=0.5, max_steps=40)
        found = selector.distances(candidates, candidates.index, 0)
        expected = [length for length, _ in by_hand(vectors, selector, relabel).values()]
        assert found.length.tolist() == expected


def test_lengths_are_computed_once_for_all_buckets_and_only_for_classes_asked_for(digits):
    network = CountedGradients(nearest_mean_network(digits))
    data = replace(digits, network=network)
    for selector in PathLengthBucket.sweep(3, per_class=2, classes=[4]).values():
        LabelFlips(selector).craft(data, 0)
        first = network.gradients
    candidates = Candidates.of(data, NextClass(), 0)
    members = (data.labels == 4).nonzero()[:, 0]
    found = PathLengthBucket(classes=[4]).distances(candidates, members, 0)
    # one gradient a step, one more where the path was found to have ended (the engine asks for it at once)
    steps = int(found.length.sum())
    assert steps <= first <= steps + len(members)
    LabelFlips(NearestToBoundary(per_class=1, classes=[4])).craft(data, 1)
    assert network.gradients == first
    LabelFlips(NearestToBoundary(per_class=1, classes=[5])).craft(data, 1)
    assert network.gradients > first


def test_clipped_paths_stay_in_the_box_and_are_no_shorter(digits):
    candidates = Candidates.of(digits, NextClass(), 0)
    index = torch.arange(100)
    free = NearestToBoundary().distances(candidates, index, 0)
    kept = NearestToBoundary(clip=True).distances(candidates, index, 0)
    assert bool((kept.length >= free.length).all())
    assert bool((kept.length > free.length).any())


def test_the_network_is_left_as_it_was(vectors):
    network = vectors.network.train()
    flags = [weight.requires_grad for weight in network.parameters()]
    state = torch.get_rng_state()
    LabelFlips(PathLengthBucket(per_class=2, step=0.25)).craft(vectors, 0)
    assert network.training
    assert [weight.requires_grad for weight in network.parameters()] == flags
    assert torch.equal(state, torch.get_rng_state())


def test_parts_of_a_large_set_give_the_same(vectors, monkeypatch):
    candidates = Candidates.of(vectors, NextClass(), 0)
    selector = FarthestFromBoundary(step=0.25)
    whole = selector.distances(candidates, candidates.index, 0)
    monkeypatch.setattr(path_lengths, "_parts", lambda rows, inputs: torch.split(rows, 7) if len(rows) else ())
    again = replace(vectors, network=vectors.network)  # nothing is remembered
    parts = selector.distances(Candidates.of(again, NextClass(), 0), candidates.index, 0)
    assert torch.equal(whole.length, parts.length)
    assert torch.equal(whole.reached, parts.reached)


def test_a_network_is_trained_where_none_came_along():
    data, surrogate = golden_data(300), TrainedSurrogate(recipe=TrainingRecipe(epochs=30))
    flips = LabelFlips(PathLengthBucket(per_class=2, classes=[0, 1], step=0.05, surrogate=surrogate)).craft(data, 0)
    assert flips.old_label.tolist().count(0) == flips.old_label.tolist().count(1) == 2


def test_an_untrained_surrogate_is_refused():
    data = golden_data(300)
    network = MLP(10, 1, 8, hidden=())
    nn.init.zeros_(network.head.weight)
    with pytest.raises(UserError, match="no more than guessing"):
        LabelFlips(PathLengthBucket(per_class=1)).craft(replace(data, network=network), 0)


def test_a_budget_of_nothing_needs_no_network():
    data = TrainingSet(torch.arange(20) % 2, 2)
    assert len(LabelFlips(PathLengthBucket(count=0)).craft(data, 0)) == 0
    assert len(LabelFlips(NearestToBoundary(per_class=0)).craft(data, 0)) == 0
