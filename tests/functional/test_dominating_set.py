"""The greedy dominating set against Algorithm 4 line by line, and against every set of points."""

from __future__ import annotations

import itertools
import math
import random

import networkx as nx
import pytest
import torch

from lightning_poison.errors import UserError
from lightning_poison.functional.class_graph import ClassGraph, class_graph, dominating_set


def graph_of(count, edges) -> ClassGraph:
    pairs = torch.tensor(sorted(edges), dtype=torch.int64).view(-1, 2)
    return ClassGraph.from_pairs(count, [(pairs[:, 0], pairs[:, 1])])


def random_graph(count, share, seed):
    draw = random.Random(seed)
    edges = {pair for pair in itertools.combinations(range(count), 2) if draw.random() < share}
    balls = [{v} | {a + b - v for a, b in edges if v in (a, b)} for v in range(count)]
    return graph_of(count, edges), balls


def algorithm_4(balls, budget, as_printed=False):
    """The thesis's lines, 8 before 7 unless as printed; of equal points the first."""
    chosen, dominated, free = [], set(), set(range(len(balls)))
    while budget > 0 and free:
        v = max(sorted(dominated | free), key=lambda x: len(free & balls[x]))
        chosen.append(v)
        if as_printed:
            free -= balls[v]
            dominated |= free & balls[v]
        else:
            dominated |= free & balls[v]
            free -= balls[v]
        budget -= 1
    return chosen


def fewest(balls):
    for size in range(len(balls) + 1):
        for some in itertools.combinations(balls, size):
            if len(set().union(*some)) == len(balls):
                return size
    raise AssertionError


def most_covered(balls, size):
    return max(len(set().union(*some)) for some in itertools.combinations(balls, size))


@pytest.mark.parametrize("seed", range(40))
def test_is_the_algorithm_step_by_step(seed):
    graph, balls = random_graph(3 + 3 * (seed % 12), (0.02, 0.1, 0.3, 0.8)[seed % 4], seed)
    assert dominating_set(graph).tolist() == algorithm_4(balls, len(balls))
    for budget in (0, 1, 3):
        assert dominating_set(graph, budget).tolist() == algorithm_4(balls, budget)


@pytest.mark.parametrize("seed", range(25))
def test_it_dominates_and_keeps_both_bounds_against_every_set(seed):
    graph, balls = random_graph(11, (0.1, 0.2, 0.35)[seed % 3], 100 + seed)
    chosen = dominating_set(graph).tolist()
    assert set().union(*(balls[v] for v in chosen)) == set(range(11))
    assert len(set(chosen)) == len(chosen)
    assert len(chosen) <= (math.log(max(int(graph.degrees.max()), 1)) + 2) * fewest(balls)
    for budget in (1, 2, 3):
        covered = len(set().union(*(balls[v] for v in dominating_set(graph, budget).tolist())))
        assert covered >= (1 - 1 / math.e) * most_covered(balls, budget)


def test_a_dominated_point_may_be_chosen_which_the_lines_as_printed_forbid():
    """A hub's neighbour reaches three points that have no other point in common."""
    edges = [(0, point) for point in range(1, 7)] + [(1, point) for point in (7, 8, 9)]
    graph = graph_of(10, edges)
    balls = [{v} | {a + b - v for a, b in edges if v in (a, b)} for v in range(10)]
    assert dominating_set(graph).tolist() == [0, 1] == algorithm_4(balls, 10)
    assert algorithm_4(balls, 10, as_printed=True) == [0, 7, 8, 9]


def test_as_printed_the_bound_fails():
    """Star of stars: the middles are dominated first, so as printed every leaf is taken one by one."""
    arms, leaves = 40, 20
    middles = range(1, arms + 1)
    edges = [(0, m) for m in middles] + [
        (m, arms + 1 + leaves * (m - 1) + leaf) for m in middles for leaf in range(leaves)
    ]
    count = 1 + arms + arms * leaves
    graph = graph_of(count, edges)
    balls = [{v, *graph.of(v).tolist()} for v in range(count)]
    bound = (math.log(arms) + 2) * arms  # the middles dominate everything
    assert len(dominating_set(graph)) == arms + 1 <= bound
    assert len(algorithm_4(balls, count, as_printed=True)) == 1 + arms * leaves > bound


def test_empty_complete_and_no_graph():
    assert dominating_set(graph_of(4, [])).tolist() == [0, 1, 2, 3]
    assert dominating_set(graph_of(4, list(itertools.combinations(range(4), 2)))).tolist() == [0]
    assert dominating_set(graph_of(0, [])).tolist() == []
    assert dominating_set(graph_of(3, [(0, 1)]), budget=0).tolist() == []
    with pytest.raises(UserError, match="budget must be an integer of at least 0"):
        dominating_set(graph_of(2, []), budget=-1)


def test_a_peer_agrees_that_it_dominates():
    points = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    graph = class_graph(points, 0.6)
    peer = nx.Graph(list(zip(*(ends.tolist() for ends in graph.edges()), strict=True)))
    peer.add_nodes_from(range(400))
    chosen = dominating_set(graph)
    assert nx.is_dominating_set(peer, set(chosen.tolist()))
    assert not nx.is_dominating_set(peer, set(chosen[:-1].tolist()))
