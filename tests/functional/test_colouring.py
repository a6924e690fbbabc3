"""Distance-two colourings against breadth-first search, and against the fewest colours on small graphs."""

from __future__ import annotations

import itertools
import random

import networkx as nx
import pytest
import torch

from lightning_poison.functional.class_graph import (
    ClassGraph,
    class_graph,
    distance_two_colouring,
    is_distance_two_colouring,
)


def graph_of(count, edges) -> ClassGraph:
    pairs = torch.tensor(sorted(edges), dtype=torch.int64).view(-1, 2)
    return ClassGraph.from_pairs(count, [(pairs[:, 0], pairs[:, 1])])


def random_edges(count, share, seed):
    draw = random.Random(seed)
    return [pair for pair in itertools.combinations(range(count), 2) if draw.random() < share]


def within_two_steps(count, edges):
    peer = nx.Graph(edges)
    peer.add_nodes_from(range(count))
    found = dict(nx.all_pairs_shortest_path_length(peer, cutoff=2))
    return {(a, b) for a in range(count) for b in found[a] if a < b}


@pytest.mark.parametrize("seed", range(40))
def test_nobody_within_two_steps_shares_a_colour(seed):
    count = 2 + seed
    edges = random_edges(count, (0.02, 0.1, 0.3)[seed % 3], seed)
    graph, clashes = graph_of(count, edges), within_two_steps(count, edges)
    colours = distance_two_colouring(graph)
    assert all(colours[a] != colours[b] for a, b in clashes)
    assert is_distance_two_colouring(graph, colours)
    largest, used = int(graph.degrees.max()), len(set(colours.tolist()))
    assert largest + 1 <= used <= largest**2 + 1
    assert set(colours.tolist()) == set(range(used))


@pytest.mark.parametrize("seed", range(60))
def test_the_check_finds_every_clash(seed):
    edges = random_edges(9, 0.2, seed)
    draw = random.Random(seed)
    colours = [draw.randrange(7) for _ in range(9)]
    expected = all(colours[a] != colours[b] for a, b in within_two_steps(9, edges))
    assert is_distance_two_colouring(graph_of(9, edges), torch.tensor(colours)) == expected


def test_the_check_knows_a_clash_at_one_and_at_two_steps():
    path = graph_of(4, [(0, 1), (1, 2), (2, 3)])
    for colours, fine in (([0, 1, 2, 0], True), ([0, 0, 1, 2], False), ([0, 1, 0, 2], False)):
        assert is_distance_two_colouring(path, torch.tensor(colours)) is fine


@pytest.mark.parametrize("seed", range(12))
def test_it_stays_near_the_fewest_colours(seed):
    edges = random_edges(8, 0.2, seed)
    clashes = within_two_steps(8, edges)

    def possible(number):
        return any(
            all(colours[a] != colours[b] for a, b in clashes) for colours in itertools.product(range(number), repeat=8)
        )

    used = int(distance_two_colouring(graph_of(8, edges)).max()) + 1
    assert not clashes or not possible(max(used - 2, 1)), "greedy takes at most one colour too many here"


def test_points_take_turns_by_degree_and_get_the_lowest_colour():
    """The largest-first greedy of NetworkX on the squared graph, with our order."""
    points = torch.randn(150, 3, generator=torch.Generator().manual_seed(0))
    graph = class_graph(points, 0.7)
    edges = [pair for pair in zip(*(ends.tolist() for ends in graph.edges()), strict=True) if pair[0] < pair[1]]
    square = nx.Graph(list(within_two_steps(150, edges)))
    square.add_nodes_from(range(150))
    order = sorted(range(150), key=lambda point: (-int(graph.degrees[point]), point))
    expected = nx.greedy_color(square, strategy=lambda *_: order)
    assert distance_two_colouring(graph).tolist() == [expected[point] for point in range(150)]


def test_empty_complete_and_no_graph():
    assert distance_two_colouring(graph_of(5, [])).tolist() == [0] * 5
    assert distance_two_colouring(graph_of(5, list(itertools.combinations(range(5), 2)))).tolist() == [0, 1, 2, 3, 4]
    assert distance_two_colouring(graph_of(0, [])).tolist() == []
    assert is_distance_two_colouring(graph_of(0, []), torch.zeros(0, dtype=torch.int64))
