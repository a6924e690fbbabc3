"""Selectors on class graphs against sorting and searching by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_poison.errors import UserError
from lightning_poison.poisons import (
    ClassGraphDegree,
    ClassGraphIntersection,
    DominatingSet,
    FeatureSpace,
    FlipList,
    LabelFlips,
    PCASpace,
    ToClass,
    TrainingSet,
)
from lightning_poison.poisons.graphs.class_graphs import best_of_both, dominating_order, usual_quantile
from tests.poisons.golden import check_golden, golden_data
from tests.poisons.graphs.data import digits_network, vectors

DATA = vectors()
ALL = [ClassGraphDegree, DominatingSet, ClassGraphIntersection]


def chosen(select, data=DATA, relabel=None, seed=0):
    return LabelFlips(select, relabel).craft(data, seed).index.tolist()


def neighbours(data, gamma, p=2.0):
    """Definition 1 class by class: position to set of positions."""
    points, labels = data.inputs.flatten(1).double(), data.labels
    near = {i: set() for i in range(len(points))}
    for i, j in itertools.combinations(range(len(points)), 2):
        if labels[i] == labels[j] and float(torch.linalg.vector_norm(points[i] - points[j], ord=p)) <= gamma:
            near[i].add(j)
            near[j].add(i)
    return near


def greedy(near, members, budget):
    """Take what dominates most, then what has the highest degree."""
    free, taken = set(members), []
    while free and len(taken) < budget:
        best = max(members, key=lambda i: (len(free & {i, *near[i]}), -i))
        taken.append(best)
        free -= {best, *near[best]}
    rest = sorted(set(members) - set(taken), key=lambda i: (-len(near[i]), i))
    return (taken + rest)[:budget]


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
@pytest.mark.parametrize(
    "budget", [{"per_class": 3}, {"count": 11}, {"fraction": 0.3}, {"per_class": 2, "classes": [2]}]
)
def test_degree_takes_the_points_with_most_neighbours_of_their_class(p, budget):
    gamma = {1.0: 3.0, 2.0: 1.8, math.inf: 1.2}[p]
    near, select = neighbours(DATA, gamma, p), ClassGraphDegree(gamma=gamma, p=p, **budget)
    classes = [[2]] if "classes" in budget else [[0], [1], [2]] if "per_class" in budget else [[0, 1, 2]]
    expected = []
    for group in classes:
        members = [i for i, label in enumerate(DATA.labels.tolist()) if label in group]
        count = budget.get("per_class", budget.get("count", round(0.3 * len(members))))
        expected += sorted(members, key=lambda i: (-len(near[i]), i))[:count]
    assert chosen(select) == sorted(expected)


@pytest.mark.parametrize("gamma", [1.0, 1.8, 3.0])
@pytest.mark.parametrize("budget", [1, 4, 15])
def test_dominating_set_takes_what_dominates_most_and_goes_on_by_degree(gamma, budget):
    near = neighbours(DATA, gamma)
    expected = []
    for label in range(3):
        members = (DATA.labels == label).nonzero()[:, 0].tolist()
        expected += greedy(near, members, budget)
    assert chosen(DominatingSet(per_class=budget, gamma=gamma)) == sorted(expected)
    together = greedy(near, list(range(90)), 3 * budget)
    assert chosen(DominatingSet(count=3 * budget, gamma=gamma)) == sorted(together)


def test_classes_are_not_joined_where_they_share_a_budget():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    points = torch.tensor([[0.0], [1.0], [5.0], [0.1], [0.9], [9.0]])  # across classes all but two lie close together
    data = TrainingSet(labels, 2, dataset=TensorDataset(points, labels))
    graph = DominatingSet(gamma=1.5).neighbourhoods.graph(data, torch.arange(6), 0)
    assert graph.degrees.tolist() == [1, 1, 0, 1, 1, 0]
    assert ClassGraphDegree(gamma=1.5).neighbourhoods.degrees(data, torch.arange(6), 0).tolist() == [1, 1, 0, 1, 1, 0]


def test_a_quantile_gives_each_class_a_distance_of_its_own():
    data = vectors(count=120)
    wide = TensorDataset(data.inputs * torch.where(data.labels == 1, 50.0, 1.0)[:, None], data.labels)
    stretched = TrainingSet(data.labels, 3, dataset=wide)
    for members in ((data.labels == label).nonzero()[:, 0] for label in range(3)):
        graph = DominatingSet(quantile=0.2).neighbourhoods.graph(stretched, members, 0)
        pairs = len(members) * (len(members) - 1) // 2
        assert graph.num_edges == math.ceil(0.2 * pairs)
    assert chosen(ClassGraphDegree(quantile=0.2), data) == chosen(ClassGraphDegree(quantile=0.2), stretched)


def test_the_usual_quantile_makes_ten_neighbours_or_joins_a_hundredth():
    graph = DominatingSet().neighbourhoods.graph(DATA, (DATA.labels == 0).nonzero()[:, 0], 0)
    assert float(graph.degrees.double().mean()) == pytest.approx(10, abs=0.2)
    assert usual_quantile(5001) == 0.01
    assert usual_quantile(2) == usual_quantile(1) == 0.5
    four = TrainingSet(torch.zeros(4, dtype=torch.int64), 2, dataset=[(torch.rand(2), 0) for _ in range(4)])
    assert len(chosen(DominatingSet(per_class=1, classes=[0]), four)) == 1


def test_both_lists_first_by_the_sum_of_places_then_the_better_placed():
    first, second = torch.tensor([4, 7, 1, 9]), torch.tensor([9, 3, 4, 8])
    assert best_of_both(first, second, 1)[0].tolist() == [4]  # places 0 + 2
    both, in_both_lists = best_of_both(first, second, 2)
    assert (both.tolist(), in_both_lists) == ([4, 9], 2)
    assert best_of_both(first, second, 6)[0].tolist() == [4, 9, 3, 7, 1, 8]
    assert best_of_both(torch.tensor([1]), torch.tensor([2]), 1)[1] == 0


@pytest.mark.parametrize("propose", ["degree", "dominating_set"])
def test_the_intersection_is_that_of_the_two_selectors_with_twice_the_budget(propose):
    selector = {"degree": ClassGraphDegree, "dominating_set": DominatingSet}[propose]
    network = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Linear(2, 3))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 0, 0, 0.3], [0, 1, 0.2, 0]]))
        network[1].weight.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, -1]]))
        for layer in network:
            layer.bias.zero_()
    data = vectors(network=network)
    both = ClassGraphIntersection(per_class=5, propose=propose, space=PCASpace(3))
    flips = LabelFlips(both).craft(data, seed=0)
    one = set(chosen(selector(per_class=10, space=PCASpace(3)), data))
    two = set(chosen(selector(per_class=10, space=FeatureSpace()), data))
    common = 0
    for label in range(3):
        members = set((data.labels == label).nonzero()[:, 0].tolist())
        agreed, taken = one & two & members, set(flips.index.tolist()) & members
        assert len(taken) == 5
        assert taken <= agreed or agreed <= taken <= one | two
        common += min(len(agreed), 5)
    assert flips.provenance["proposed_by_both"] == common


def test_the_intersection_fills_up_and_records_it(tmp_path):
    """Crowded on the left in one coordinate and on the right in the other."""
    left, right = torch.linspace(0, 0.5, 6), torch.linspace(3, 13, 6)
    points = torch.stack([torch.cat([left, right]), torch.cat([right, left])], dim=1)
    labels = torch.zeros(12, dtype=torch.int64)
    data = TrainingSet(labels, 2, dataset=TensorDataset(points, labels))

    class Column(PCASpace):
        def points(self, training_set, seed):
            return training_set.inputs[:, self.dim : self.dim + 1]

    object.__setattr__(first := Column(), "dim", 0)
    select = ClassGraphIntersection(count=3, space=first, second_space=Column(1), gamma=0.31, second_gamma=0.31)
    flips = LabelFlips(select).craft(data, seed=0)
    assert flips.provenance["proposed_by_both"] == 0
    assert flips.index.tolist() == [2, 3, 8]  # the best of the first, of the second, and so on: 2, 8, then 3
    flips.write(tmp_path / "flips.csv")
    assert FlipList.read(str(tmp_path / "flips.csv")).provenance["proposed_by_both"] == 0


@pytest.mark.parametrize("selector", ALL)
def test_every_point_or_none_needs_no_graph(selector):
    data = vectors(count=12)
    gamma = 2.5 if selector is ClassGraphDegree else 1e-6  # degrees are taken of every point
    assert chosen(selector(fraction=1.0, gamma=gamma), data) == list(range(12))
    assert chosen(selector(count=0), data) == []


@pytest.mark.parametrize("selector", ALL)
def test_empty_and_complete_graphs_are_named(selector):
    extra = {} if selector is not ClassGraphIntersection else {"second_space": PCASpace(2), "second_gamma": 1.0}
    for gamma, joined, remedy in ((1e-6, "none", "raise"), (1e6, "all", "lower")):
        with pytest.raises(UserError, match=rf"pairs of class 0 .* joins {joined} \(half of .* {remedy} gamma"):
            chosen(selector(per_class=2, gamma=gamma, **extra))
    if not extra:
        with pytest.raises(UserError, match=r"got quantile=1\.0, gamma=.* joins all"):
            chosen(selector(per_class=2, quantile=1.0))


@pytest.mark.parametrize("selector", [ClassGraphDegree, DominatingSet])
@pytest.mark.parametrize("arguments", [{}, {"gamma": 0.0}, {"gamma": 0.5}, {"quantile": 0.2}])
def test_equal_points_have_no_graph(selector, arguments):
    labels = torch.arange(12) % 2
    points = torch.where(labels[:, None] == 1, torch.full((12, 3), 0.3), torch.arange(36.0).reshape(12, 3))
    data = TrainingSet(labels, 2, dataset=TensorDataset(points, labels))
    with pytest.raises(UserError, match="the points of class 1 must differ for a class graph, but all are equal"):
        chosen(selector(per_class=1, classes=[1], **arguments), data)


@pytest.mark.parametrize("selector", ALL)
def test_mistakes_are_named(selector):
    for arguments, message in (
        ({"gamma": 1.0, "quantile": 0.1}, "one of gamma and quantile"),
        ({"gamma": -1.0}, "gamma must lie in"),
        ({"quantile": 5.0}, "quantile must lie in .* for 1 % write 0.01"),
        ({"p": 0.5}, "p must lie in"),
        ({"p": "two"}, "p must be a finite number, got two; 1, 2 and inf are usual"),
        ({"count": 1, "per_class": 1}, "takes one of count, per_class and fraction"),
    ):
        if selector is ClassGraphIntersection and "quantile" in arguments and "gamma" in arguments:
            arguments = {**arguments, "second_gamma": 1.0}
        with pytest.raises(UserError, match=message):
            selector(**arguments)
    with pytest.raises(UserError, match="per_class must be at most the size of every class, got 500 and class 0"):
        chosen(selector(per_class=500))
    with pytest.raises(UserError, match="looks at the inputs"):
        chosen(selector(per_class=1), TrainingSet(DATA.labels, 3))
    with pytest.raises(UserError, match="propose must be one of degree, dominating_set"):
        ClassGraphIntersection(propose="best")


@pytest.mark.parametrize("p", ["inf", math.inf])
def test_infinity_can_be_written_as_a_word_and_stands_so_in_the_list(p, tmp_path):
    flips = LabelFlips(DominatingSet(per_class=1, p=p)).craft(DATA, seed=0)
    assert flips.provenance["arguments"]["select"]["p"] == "inf"
    flips.write(tmp_path / "flips.csv")
    assert FlipList.read(str(tmp_path / "flips.csv")).provenance["arguments"] == flips.provenance["arguments"]


@pytest.mark.parametrize("selector", [ClassGraphDegree, DominatingSet])
def test_it_does_not_depend_on_the_seed_or_the_global_state(selector):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    flips = chosen(selector(per_class=3), seed=0)
    assert torch.equal(before, torch.get_rng_state())
    assert flips == chosen(selector(per_class=3), seed=7)


def test_points_of_the_target_class_are_left_alone():
    assert set(DATA.labels[chosen(DominatingSet(per_class=4), relabel=ToClass(1))].tolist()) == {0, 2}
    pair = chosen(ClassGraphDegree(per_class=4, classes=[0]), relabel=ToClass(1))
    assert set(DATA.labels[pair].tolist()) == {0}


def test_a_class_of_one_or_two_points_can_be_flipped():
    labels = torch.tensor([0, 1, 1, 2, 2, 2])
    data = TrainingSet(labels, 3, dataset=TensorDataset(torch.tensor([[0.0], [1], [5], [7], [8], [20]]), labels))
    assert chosen(ClassGraphDegree(per_class=1), data) == [0, 1, 4]
    assert chosen(DominatingSet(per_class=1), data) == [0, 1, 4]


def test_the_order_goes_on_by_degree():
    data = vectors(count=30)
    graph = DominatingSet(gamma=1.5).neighbourhoods.graph(data, torch.arange(30), 0)
    near = neighbours(data, 1.5)
    assert dominating_order(graph, 30).tolist() == greedy(near, list(range(30)), 30)


def test_golden():
    data = golden_data()
    with_network = TrainingSet(data.labels, 10, "golden", dataset=data.dataset, network=digits_network(data))
    check_golden("ClassGraphDegree", LabelFlips(ClassGraphDegree(per_class=2)), data)
    check_golden("ClassGraphDegreeLinf", LabelFlips(ClassGraphDegree(count=15, p=math.inf, gamma=0.6)), data)
    check_golden("DominatingSet", LabelFlips(DominatingSet(per_class=3)), data)
    check_golden("DominatingSetPCA", LabelFlips(DominatingSet(per_class=2, space=PCASpace(8), quantile=0.1)), data)
    check_golden("ClassGraphIntersection", LabelFlips(ClassGraphIntersection(per_class=3)), with_network)
