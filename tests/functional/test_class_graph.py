"""Class graphs against the definition, pair by pair, in exact or double precision."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from lightning_poison.errors import UserError
from lightning_poison.functional import class_graph as module
from lightning_poison.functional import close_pairs as pairs_module
from lightning_poison.functional.class_graph import ClassGraph, class_graph, neighbour_counts
from lightning_poison.functional.close_pairs import close_pairs, distance_quantile, pair_distances

INF = math.inf


def some_points(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def by_definition(points: np.ndarray, gamma: float, p: float) -> set[tuple[int, int]]:
    """Definition 1, with Python's own floats."""
    close = set()
    for i, j in itertools.combinations(range(len(points)), 2):
        differences = [abs(float(a) - float(b)) for a, b in zip(points[i], points[j], strict=True)]
        size = max(differences) if p == INF else math.fsum(d**p for d in differences) ** (1 / p)
        if size <= gamma:
            close.add((i, j))
    return close


def edges_of(graph: ClassGraph) -> set[tuple[int, int]]:
    return {(i, j) for i, j in zip(*(ends.tolist() for ends in graph.edges()), strict=True) if i < j}


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, 7.0, 60.0, INF])
@pytest.mark.parametrize("share", [0.003, 0.1, 0.5, 0.95])
def test_edges_are_those_of_the_definition(p, share, monkeypatch):
    for name in ("_ROWS", "_COLUMNS", "_LEADING"):
        monkeypatch.setattr(pairs_module, name, 7 if name != "_COLUMNS" else 11)
    points = some_points(60, 20)
    gamma = distance_quantile(points, share, p) * 1.0001
    expected = by_definition(points.numpy(), gamma, p)
    graph = class_graph(points, gamma, p)
    assert edges_of(graph) == expected
    assert graph.num_edges == len(expected)
    assert graph.degrees.tolist() == [sum(i in pair for pair in expected) for i in range(60)]
    assert neighbour_counts(points, gamma, p).equal(graph.degrees)
    starts, ends = graph.edges()
    assert {(b, a) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)} == set(
        zip(starts.tolist(), ends.tolist(), strict=True)
    )
    for point in range(60):
        assert graph.of(point).tolist() == sorted({a + b - point for a, b in expected if point in (a, b)})


@pytest.mark.parametrize("p", [1.0, 2.0, 2.5, INF])
def test_pairs_at_the_very_distance_are_joined_and_those_just_beyond_are_not(p):
    """Grey levels of 255: distances repeat exactly, and float32 cannot hold them."""
    stream = torch.Generator().manual_seed(1)
    levels = torch.randint(0, 256, (40, 9), generator=stream)
    gamma_pair = (levels[0] - levels[1]).abs()
    exact = int(gamma_pair.max()) if p == INF else sum(Fraction(int(d)) ** 2 if p == 2 else int(d) for d in gamma_pair)
    points = (levels.double() / 255) if p == 2.5 else levels.float() / 255
    if p == 2.5:
        gamma = float(pair_distances(points, torch.tensor([0]), torch.tensor([1]), p))
        assert (0, 1) in edges_of(class_graph(points, gamma, p))
        assert (0, 1) not in edges_of(class_graph(points, gamma * (1 - 1e-5), p))
        return
    gamma = math.sqrt(exact) / 255 if p == 2 else exact / 255
    expected = set()
    for i, j in itertools.combinations(range(40), 2):
        differences = [int(d) for d in (levels[i] - levels[j]).abs()]
        size = max(differences) if p == INF else sum(d * d for d in differences) if p == 2 else sum(differences)
        if size <= exact:
            expected.add((i, j))
    assert edges_of(class_graph(points, gamma, p)) == expected
    assert (0, 1) in expected
    assert (0, 1) not in edges_of(class_graph(points, gamma * (1 - 1e-5), p))


@pytest.mark.parametrize("p", [1.0, 2.0, 4.0, INF])
def test_far_from_the_origin_close_to_each_other_and_of_any_size(p):
    near = some_points(30, 5).double()
    for points, scale in ((near * 1e-6 + 3000, 1e-6), (near * 1e12, 1e12), (near * 1e-12, 1e-12)):
        reference = near * scale if scale != 1e-6 else points - 3000
        gamma = distance_quantile(reference, 0.3, p) * 1.0001
        assert edges_of(class_graph(points, gamma, p)) == by_definition(reference.numpy(), gamma, p)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, INF])
def test_two_far_groups_whose_mean_lies_between_do_not_blur_each_other(p):
    """Single precision alone is off by more than the whole distance here."""
    points = some_points(40, 6).double()
    points[::2] += 1e5
    gamma = distance_quantile(points, 0.2, p)
    assert edges_of(class_graph(points, gamma, p)) == by_definition(points.numpy(), gamma * (1 + 1e-9), p)
    assert class_graph(points, gamma, p).num_edges == math.ceil(0.2 * 780)


@pytest.mark.parametrize("p", [1.0, 2.0, 60.0, INF])
def test_distance_zero_joins_equal_points_only(p):
    points = torch.tensor([[0.1, 0.2], [0.1, 0.2], [0.1, 0.2 + 1e-7], [0.5, 0.5], [0.1, 0.2]])
    assert edges_of(class_graph(points, 0.0, p)) == {(0, 1), (0, 4), (1, 4)}


def test_large_power_does_not_lose_small_differences():
    """0.1 to the 60th is below float32's smallest number."""
    points = torch.tensor([[0.0, 0.0], [0.1, 0.1], [0.04, 0.0]])
    assert edges_of(class_graph(points, 0.05, 60.0)) == {(0, 2)}


def test_empty_complete_and_tiny_graphs():
    points = some_points(9, 3)
    assert class_graph(points, 1e-3).num_edges == 0
    assert class_graph(points, 100.0).degrees.tolist() == [8] * 9
    assert class_graph(points[:1], 1.0).degrees.tolist() == [0]
    assert class_graph(points[:0], 1.0).num_points == 0
    assert class_graph(points.view(9, 3, 1, 1), 1.0).degrees.equal(class_graph(points, 1.0).degrees)


def test_blocks_are_reported_and_hold_each_pair_once():
    points, done = some_points(1300, 3), []
    blocks = list(close_pairs(points, 0.3, advance=done.append))
    assert sum(done) == 1300
    assert len(blocks) == len(done) == 3
    pairs = [pair for first, second in blocks for pair in zip(first.tolist(), second.tolist(), strict=True)]
    assert pairs == sorted(set(pairs))
    assert all(i < j for i, j in pairs)
    distances = torch.cdist(points.double(), points.double())
    assert set(pairs) == {(i, j) for i, j in (distances <= 0.3).nonzero().tolist() if i < j}


def test_the_quantile_is_that_of_all_pairs_where_they_are_few():
    points = some_points(50, 4)
    distances = sorted(
        math.dist(points[i].tolist(), points[j].tolist()) for i, j in itertools.combinations(range(50), 2)
    )
    assert distance_quantile(points, 0.0) == pytest.approx(distances[0])
    assert distance_quantile(points, 1.0) == pytest.approx(distances[-1])
    assert distance_quantile(points, 0.2) == pytest.approx(distances[245 - 1])  # of 1,225
    assert distance_quantile(points, 0.2001) == pytest.approx(distances[246 - 1])
    graph = class_graph(points, distance_quantile(points, 0.2))
    assert graph.num_edges == 245


@pytest.mark.parametrize("count", [2, 3, 5, 25, 41])
def test_the_rank_of_a_quantile_is_exact(count):
    """0.07 * 300 is 21.000000000000004 in floats, yet 21 of the 300 pairs are seven in a hundred."""
    points = torch.tensor([2.0**power for power in range(count)], dtype=torch.float64)[:, None]  # no distance twice
    distances = sorted(2.0**i - 2.0**j for i in range(count) for j in range(i))
    for text in [f"0.{hundredths:02}" for hundredths in range(1, 100)] + ["0.001", "0.0333", "0.123456", "1"]:
        rank = math.ceil(Fraction(text) * len(distances))
        assert distance_quantile(points, float(text)) == distances[rank - 1], text


def test_the_quantile_of_many_points_is_estimated_from_a_draw_of_its_own():
    points = some_points(3000, 4)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    gamma = distance_quantile(points, 0.02)
    assert torch.equal(before, torch.get_rng_state())
    assert gamma == distance_quantile(points, 0.02)
    assert gamma != distance_quantile(points, 0.02, seed=1)
    assert distance_quantile(points, 0.0) > 0  # no point is drawn with itself
    share = neighbour_counts(points, gamma).double().mean() / 2999
    assert share == pytest.approx(0.02, abs=4 * math.sqrt(0.02 * 0.98 / 100_000))


def test_mistakes_are_named():
    points = some_points(5, 2)
    for build, message in (
        (lambda: class_graph(points, -1.0), "gamma must lie in"),
        (lambda: class_graph(points, 1.0, p=0.5), r"p must lie in \[1, inf\], got 0.5; 1, 2 and inf are usual"),
        (lambda: class_graph(points, 1.0, p=math.nan), "p must be a finite number"),
        (lambda: class_graph(points * math.nan, 1.0), "points must be finite"),
        (lambda: distance_quantile(points, 2.0), "quantile must lie in"),
        (lambda: distance_quantile(points[:1], 0.5), "at least two points, got 1"),
    ):
        with pytest.raises(UserError, match=message):
            build()


def test_too_many_edges_are_refused_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(module, "_MAX_EDGES", 40)
    with pytest.raises(UserError, match="at most 40 edges, got more for 10 points; lower gamma"):
        class_graph(some_points(10, 2), 100.0)
    assert neighbour_counts(some_points(10, 2), 100.0).tolist() == [9] * 10


@pytest.mark.slow
def test_sixty_thousand_points_without_a_square_matrix():
    """An n x n matrix of bits would be 450 MB, of floats 14 GB."""
    script = (
        "import resource, torch; torch.set_num_threads(1)\n"
        "from lightning_poison.functional.class_graph import class_graph\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "class_graph(torch.rand(1000, 3), 0.1)\n"
        "points = torch.rand(60_000, 8); before = peak()\n"
        "graph = class_graph(points, 0.2)\n"
        "print(peak() - before, graph.num_edges)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    megabytes, edges = (float(word) for word in done.stdout.split())
    assert edges > 10_000
    assert megabytes < 300
