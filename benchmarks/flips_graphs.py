"""Class graphs, dominating sets and colourings of a 6,000-point class; the colouring score; 60,000 points at once."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch import Tensor

from benchmarks.runner import Row, median_ratio, paired_seconds, row
from lightning_poison.functional.class_graph import (
    ClassGraph,
    class_graph,
    distance_two_colouring,
    dominating_set,
    is_distance_two_colouring,
    neighbour_counts,
)
from lightning_poison.functional.close_pairs import distance_quantile
from lightning_poison.poisons import ColouringScore, LabelFlips, TrainingSet

__all__ = ["run"]

CLASS, ALL, QUANTILE = 6_000, 60_000, 0.01
MINUTES = 120.0  # seconds


def run() -> list[Row]:
    """Ratios to scikit-learn, to a dense matrix and to a greedy search that counts anew; seconds in the subjects."""
    images = torch.rand(CLASS, 1, 28, 28, generator=torch.Generator().manual_seed(0)).sub_(0.8).relu_().mul_(5)
    points = images.flatten(1)
    gamma = distance_quantile(points, QUANTILE)
    graph = class_graph(points, gamma)
    return [*_graph_rows(points, gamma), *_search_rows(graph), _all_points(), _colouring_score(images)]


def _graph_rows(points: Tensor, gamma: float) -> list[Row]:
    from sklearn.neighbors import NearestNeighbors

    rows = points.numpy()
    mine, library, dense = paired_seconds(
        lambda: class_graph(points, gamma),
        lambda: NearestNeighbors(radius=gamma, algorithm="brute").fit(rows).radius_neighbors_graph(),
        lambda: _square(points, gamma, 2.0),
        rounds=3,
    )
    widest = distance_quantile(points, QUANTILE, math.inf)
    largest, chebyshev = paired_seconds(
        lambda: class_graph(points, widest, math.inf),
        lambda: _square(points, widest, math.inf),
        rounds=1,
    )
    return [
        _timed("class graph, l2", mine, "radius_neighbors_graph, scikit-learn", library, 1.0),
        _timed("class graph, l2", mine, "torch.cdist, n x n", dense, 2.0),
        _timed("class graph, linf", largest, "torch.cdist, n x n", chebyshev, 1.5),
    ]


def _square(points: Tensor, gamma: float, p: float) -> Tensor:
    return (torch.cdist(points, points, p=p) <= gamma).nonzero()


def _search_rows(graph: ClassGraph) -> list[Row]:
    (mine, naive) = paired_seconds(lambda: dominating_set(graph), lambda: _counting_anew(graph), rounds=1)
    (colouring, check) = paired_seconds(
        lambda: distance_two_colouring(graph),
        lambda: is_distance_two_colouring(graph, torch.arange(graph.num_points)),
        rounds=3,
    )
    colours = int(distance_two_colouring(graph).max()) + 1
    return [
        _timed(f"dominating set of {len(dominating_set(graph)):,}", mine, "counting anew for each choice", naive, 0.5),
        _timed(f"distance-2 colouring, {colours:,} colours", colouring, "its check", check, 50.0),
    ]


def _counting_anew(graph: ClassGraph) -> list[int]:
    """The same greedy search, with a product of the adjacency matrix for each choice."""
    from scipy.sparse import csr_matrix, identity

    ends = (graph.matrix.indices, graph.matrix.indptr)
    adjacency = csr_matrix((np.ones(len(ends[0]), np.int32), *ends), shape=(graph.num_points,) * 2)
    balls = (adjacency + identity(graph.num_points, dtype=np.int32)).tocsr()
    free, chosen = np.ones(graph.num_points, np.int32), []
    while free.any():
        best = int((balls @ free).argmax())
        chosen.append(best)
        free[balls.indices[balls.indptr[best] : balls.indptr[best + 1]]] = 0
    return chosen


def _all_points() -> Row:
    points = torch.rand(ALL, 50, generator=torch.Generator().manual_seed(0))
    gamma = distance_quantile(points, QUANTILE / 10)
    begun = time.perf_counter()
    counts = neighbour_counts(points, gamma)
    seconds = time.perf_counter() - begun
    subject = f"degrees, {ALL:,} points of 50 numbers, {float(counts.double().mean()):.0f} neighbours, {seconds:.0f} s"
    return row("flips_graphs", subject, f"{MINUTES:.0f} s", seconds / MINUTES, 1.0)


def _colouring_score(images: Tensor) -> Row:
    labels = torch.zeros(CLASS, dtype=torch.int64)
    training_set = TrainingSet(labels, 2, dataset=torch.utils.data.TensorDataset(images, labels))
    _ = training_set.inputs
    select = ColouringScore(count=10, p=2.0)
    begun = time.perf_counter()
    flips = LabelFlips(select).craft(training_set, seed=0)
    seconds = time.perf_counter() - begun
    colours = flips.provenance["colours"]["0"]
    return row("flips_graphs", f"colouring score, {colours} colours, {seconds:.0f} s", "120 s", seconds / MINUTES, 1.0)


def _timed(subject: str, mine: list[float], against: str, theirs: list[float], target: float) -> Row:
    seconds = f"{sorted(mine)[len(mine) // 2]:.2f} s for {CLASS:,} points"
    return row("flips_graphs", f"{subject}, {seconds}", against, median_ratio(mine, theirs), target)
