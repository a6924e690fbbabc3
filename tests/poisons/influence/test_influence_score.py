from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_poison.attacks import PGD
from lightning_poison.ensembles import TrainingRecipe
from lightning_poison.errors import UserError
from lightning_poison.poisons import Candidates, InfluenceScore, LabelFlips, NewClass, NextClass, TrainingSet
from lightning_poison.poisons.surrogates import Surrogate, TrainedSurrogate
from tests.poisons.golden import check_golden, golden_data, nearest_mean_network


def test_points_that_judge_are_flipped_last(small):
    selector = InfluenceScore(outer=12, fraction=0.8)
    outer = set(selector.outer_points(Candidates.of(small, NextClass(), 0), 0).tolist())
    assert len(outer) == 12
    assert not outer & set(LabelFlips(selector).craft(small, 0).index.tolist())
    assert len(LabelFlips(InfluenceScore(fraction=1.0)).craft(small, 0)) == 60


def test_outer_points_belong_to_the_flipped_classes_unless_others_are_named(small):
    candidates = Candidates.of(small, NextClass(), 0)
    own = InfluenceScore(classes=[1], outer=3).outer_points(candidates, 0)
    assert small.labels[own].tolist() == [1, 1, 1]
    named = InfluenceScore(classes=[1], outer=1000, outer_classes=[0, 2]).outer_points(candidates, 0)
    assert len(named) == 8
    assert set(small.labels[named].tolist()) <= {0, 2}
    assert not torch.equal(own, InfluenceScore(classes=[1], outer=3).outer_points(candidates, 1))


def test_the_most_influential_points_are_flipped(small):
    selector = InfluenceScore(per_class=3, outer=10)
    candidates = Candidates.of(small, NextClass(), 0)
    influence = selector.influence(candidates, torch.arange(60), 0)
    influence[selector.outer_points(candidates, 0)] = -torch.inf
    flips = LabelFlips(selector).craft(small, 0)
    for label in range(3):
        own = influence.masked_fill(small.labels != label, -torch.inf)
        assert set(flips.index[flips.old_label == label].tolist()) == set(own.topk(3).indices.tolist())


seen: list[TrainingSet] = []


@dataclass(frozen=True)
class Spy(Surrogate):
    """Looks at what a surrogate may be trained on."""

    def network(self, training_set, seed):
        seen.append(training_set)
        return nearest_mean_network(training_set)


def test_a_surrogate_is_trained_without_the_points_that_judge(small):
    data = replace(small, network=None)
    seen.clear()
    selector = InfluenceScore(per_class=2, outer=10, surrogate=Spy())
    LabelFlips(selector).craft(data, 0)
    outer = selector.outer_points(Candidates.of(data, NextClass(), 0), 0)
    kept = [row for row in range(60) if row not in outer.tolist()]
    assert torch.equal(seen[0].inputs, data.inputs[kept])
    assert torch.equal(seen[0].labels, data.labels[kept])


@pytest.mark.parametrize("weights", ["last_layer", "network"])
def test_crafted_with_a_network_that_is_trained_now(weights):
    data = golden_data(300)
    selector = InfluenceScore(
        per_class=1,
        weights=weights,
        surrogate=TrainedSurrogate(recipe=TrainingRecipe(epochs=30)),
        attack=PGD(eps=0.05, steps=3),
    )
    state = torch.get_rng_state()
    flips = LabelFlips(selector).craft(data, 0)
    assert flips.old_label.tolist().count(3) == 1
    assert len(flips) == 10
    assert torch.equal(state, torch.get_rng_state())
    assert "PGD(eps=0.05, steps=3" in flips.provenance["strategy"]


class Softened(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return torch.log_softmax(self.network(inputs), dim=1)


def test_what_cannot_be_done_is_said(small):
    with pytest.raises(UserError, match="weights=network cannot judge flips to a new class"):
        LabelFlips(InfluenceScore(per_class=1, weights="network"), NewClass()).craft(small, 0)
    softened = replace(small, network=Softened(small.network))
    with pytest.raises(UserError, match="must be that of its last linear layer"):
        LabelFlips(InfluenceScore(per_class=1)).craft(softened, 0)
    assert len(LabelFlips(InfluenceScore(per_class=1, weights="network")).craft(softened, 0)) == 3
    with pytest.raises(UserError, match=r"outer_classes must lie in \[0, 2\], got 3"):
        LabelFlips(InfluenceScore(per_class=1, outer_classes=[3])).craft(small, 0)
    few = TrainingSet(torch.tensor([0, 1]), 2, dataset=TensorDataset(torch.rand(2, 2), torch.tensor([0, 1])))
    with pytest.raises(UserError, match="influence needs 5 training points of the classes that judge, got 2"):
        LabelFlips(InfluenceScore(per_class=1)).craft(few, 0)
    for arguments, message in (
        ({"weights": "head"}, "weights must be one of last_layer, network"),
        ({"damping": 0.0}, "damping must lie in"),
        ({"outer": 0}, "outer must be an integer of at least 1"),
        ({"curvature": 0}, "curvature must be an integer of at least 1"),
        ({"outer_classes": [-1]}, "outer_classes must be an integer of at least 0"),
    ):
        with pytest.raises(UserError, match=message):
            InfluenceScore(**arguments)


def golden_with_network() -> TrainingSet:
    data = golden_data()
    return replace(data, network=nearest_mean_network(data))


def test_golden():
    check_golden("InfluenceScore", LabelFlips(InfluenceScore(per_class=2)), golden_with_network())
    attack = PGD(eps=0.1, steps=5)
    check_golden("InfluenceScoreAttacked", LabelFlips(InfluenceScore(count=9, attack=attack)), golden_with_network())
