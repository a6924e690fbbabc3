"""The colouring score against a loop over edges, with networks that know the colours without training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lightning_poison.attacks import FGSM, PGD
from lightning_poison.ensembles import TrainingRecipe
from lightning_poison.errors import UserError
from lightning_poison.functional.class_graph import (
    ClassGraph,
    class_graph,
    distance_two_colouring,
    is_distance_two_colouring,
)
from lightning_poison.poisons import ColouringScore, LabelFlips, TrainingSet
from lightning_poison.poisons.graphs import colouring_score as module
from lightning_poison.poisons.graphs.colouring_score import carried_neighbours
from tests.poisons.golden import check_golden, golden_data
from tests.poisons.graphs.data import vectors

NO_TRAINING = TrainingRecipe(epochs=1, lr=1e-12)
ATTACK = PGD(eps=0.2, steps=5, losses=("cross_entropy",))


class NearestPoint(nn.Module):
    """Scores a colour by the nearest point that has it."""

    def __init__(self, points, colours, num_classes):
        super().__init__()
        self.points, self.colours, self.num_classes = points.flatten(1), colours, num_classes
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, inputs):
        squares = torch.cdist(inputs.flatten(1), self.points, compute_mode="donot_use_mm_for_euclid_dist").square()
        scores = [-squares[:, self.colours == colour].amin(1) for colour in range(self.num_classes)]
        return torch.stack(scores, 1) + self.unused


def knowing(data, label, gamma, p=math.inf):
    """Makes the network for the colours of one class."""
    points = data.inputs[data.labels == label]
    colours = distance_two_colouring(class_graph(points, gamma, p))
    return lambda num_classes: NearestPoint(points, colours, num_classes)


def test_counts_are_those_of_a_loop_over_points_and_neighbours():
    points = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))
    graph = class_graph(points, 0.25, math.inf)
    colours = distance_two_colouring(graph)
    network, done = NearestPoint(points, colours, int(colours.max()) + 1), []
    found = carried_neighbours(ATTACK, network, points, graph, colours, done.append)
    expected = []
    for x in range(40):
        count = 0
        for neighbour in graph.of(x).tolist():
            own, goal = colours[neighbour][None], colours[x][None]
            count += int(ATTACK(network, points[neighbour][None], own, targets=goal).fooled)
        expected.append(count)
    assert found.tolist() == expected
    assert sum(done) == 2 * graph.num_edges
    assert 0 < sum(expected) < 2 * graph.num_edges
    assert found.tolist() != graph.degrees.tolist()


def test_the_way_is_from_the_neighbour_to_the_point():
    """A point with a wide region: its neighbour is carried to it, but not the other way round."""
    network = nn.Linear(1, 2)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.0], [1.0]]))
        network.bias.copy_(torch.tensor([0.2, 0.0]))  # colour 1 from 0.2 on
    pair = ClassGraph.from_pairs(2, [(torch.tensor([0]), torch.tensor([1]))])
    inputs = torch.tensor([[0.15], [0.9]])
    assert carried_neighbours(FGSM(eps=0.1), network, inputs, pair, torch.tensor([0, 1])).tolist() == [0, 1]


def test_inputs_outside_the_box_are_attacked_in_shares_of_their_range():
    points = torch.randint(1025, (30, 3), generator=torch.Generator().manual_seed(1)) / 1024  # no scaling rounds them
    points[0], points[1] = 0.0, 1.0
    graph = class_graph(points, 0.3)
    colours = distance_two_colouring(graph)
    network = NearestPoint(points, colours, int(colours.max()) + 1)
    attack = PGD(eps=0.25, steps=5, step_size=0.125, losses=("cross_entropy",))
    inside = carried_neighbours(attack, network, points, graph, colours)
    far = nn.Sequential(Affine(1 / 4, 1 / 2), network)
    outside = carried_neighbours(attack, far, points * 4 - 2, graph, colours)
    assert inside.tolist() == outside.tolist()
    assert 0 < int(inside.sum()) < 2 * graph.num_edges


class Affine(nn.Module):
    def __init__(self, factor, shift):
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, inputs):
        return inputs * self.factor + self.shift


def test_the_points_of_largest_score_are_taken_and_recorded():
    data = vectors(count=60, seed=3)
    inputs = (data.inputs - data.inputs.min()) / (data.inputs.max() - data.inputs.min())
    data = TrainingSet(data.labels, 3, dataset=TensorDataset(inputs, data.labels))
    members = (data.labels == 1).nonzero()[:, 0]
    graph = class_graph(inputs[members], 0.12, math.inf)
    colours = distance_two_colouring(graph)
    net = knowing(data, 1, 0.12)
    counts = carried_neighbours(ATTACK, net(int(colours.max()) + 1), inputs[members], graph, colours)
    best = members[torch.argsort(counts, descending=True, stable=True)[:4]].sort().values
    select = ColouringScore(per_class=4, classes=[1], gamma=0.12, net=net, recipe=NO_TRAINING, attack=ATTACK)
    flips = LabelFlips(select).craft(data, seed=0)
    assert flips.index.tolist() == best.tolist()
    assert flips.provenance["colours"] == {"1": int(colours.max()) + 1}
    assert flips.provenance["colours_memorised"] == {"1": 1.0}


def test_scores_are_computed_once_whatever_the_budget(monkeypatch):
    data = golden_data(300)
    calls = []
    trained = module.train_networks
    monkeypatch.setattr(module, "train_networks", lambda *args, **kwargs: calls.append(1) or trained(*args, **kwargs))
    net = knowing(data, 5, 0.6)
    for budget in (1, 3, 5):
        select = ColouringScore(per_class=budget, classes=[5], gamma=0.6, net=net, recipe=NO_TRAINING)
        assert len(LabelFlips(select).craft(data, seed=0)) == budget
        assert set(data.labels[LabelFlips(select).craft(data, seed=0).index].tolist()) == {5}
    assert len(calls) == 1
    LabelFlips(ColouringScore(classes=[5], gamma=0.6, net=net, recipe=NO_TRAINING)).craft(data, seed=1)
    assert len(calls) == 2


@pytest.mark.slow
def test_the_usual_network_memorises_a_real_class():
    data = golden_data(600)
    flips = LabelFlips(ColouringScore(per_class=3, classes=[5])).craft(data, seed=0)
    assert flips.provenance["colours_memorised"]["5"] >= 0.9
    graph = ColouringScore().neighbourhoods.graph(data, (data.labels == 5).nonzero()[:, 0], 0)
    assert is_distance_two_colouring(graph, distance_two_colouring(graph))
    assert flips.provenance["colours"]["5"] == int(distance_two_colouring(graph).max()) + 1
    assert float(graph.degrees.double().mean()) >= 2


def test_what_cannot_be_memorised_is_named():
    data = golden_data(300)
    select = ColouringScore(classes=[5], gamma=0.9, recipe=TrainingRecipe(epochs=1, lr=1e-9))
    with pytest.raises(
        UserError, match=r"must memorise the colours of class 5, got \d.*% of \d+ colours .* 1 epochs; give"
    ):
        LabelFlips(select).craft(data, seed=0)
    for gamma, joined in ((1e-9, "none"), (5.0, "all")):
        with pytest.raises(UserError, match=f"which joins {joined}"):
            LabelFlips(ColouringScore(classes=[5], gamma=gamma)).craft(data, seed=0)


def test_global_random_state_is_left_alone():
    data = golden_data(300)
    select = ColouringScore(per_class=2, classes=[5], gamma=0.6, net=knowing(data, 5, 0.6), recipe=NO_TRAINING)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = LabelFlips(select).craft(data, seed=0)
    assert torch.equal(before, torch.get_rng_state())
    assert LabelFlips(select).craft(golden_data(300), seed=0).same_flips(first)


def test_golden():
    data = golden_data()
    select = ColouringScore(per_class=4, classes=[5], gamma=0.55, net=knowing(data, 5, 0.55), recipe=NO_TRAINING)
    check_golden("ColouringScore", LabelFlips(select), data)
