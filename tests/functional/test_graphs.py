"""Neighbours and spectral embeddings against plain NumPy and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lightning_poison.errors import UserError
from lightning_poison.functional.graphs import nearest_neighbours, neighbour_weights, spectral_embedding

NOISE = 0.05 * torch.randn(600, 64, generator=torch.Generator().manual_seed(0))  # no two distances are equal
POINTS = torch.tensor(load_digits().data[:600] / 16, dtype=torch.float32) + NOISE


def dense_graph(points: np.ndarray, neighbours: int) -> np.ndarray:
    """The definition, point by point."""
    graph = np.zeros((len(points), len(points)))
    for i, point in enumerate(points):
        distances = np.sqrt(((points - point) ** 2).sum(1))
        distances[i] = np.inf
        for j in np.argsort(distances)[:neighbours]:
            graph[i, j] = np.exp(-2 * (distances[j] / np.sort(distances)[neighbours - 1]) ** 2)
    return (graph + graph.T) / 2


def test_neighbours_are_the_nearest_and_not_the_point_itself() -> None:
    distances, index = nearest_neighbours(POINTS, 4)
    every = torch.cdist(POINTS.double(), POINTS.double())
    every.fill_diagonal_(torch.inf)
    assert torch.allclose(distances, every.topk(4, largest=False).values, atol=1e-5)
    assert not (index == torch.arange(600)[:, None]).any()
    assert (distances.diff(dim=1) >= 0).all()
    between = nearest_neighbours(POINTS[:500], 3, POINTS[500:])[0]
    every = torch.cdist(POINTS[500:].double(), POINTS[:500].double())
    assert torch.allclose(between, every.topk(3, largest=False).values, atol=1e-5)


@pytest.mark.parametrize("count", [600, 300])
def test_the_embedding_is_that_of_the_dense_graph(count: int) -> None:
    """Both solvers: the dense one below 500 points, the iterative one above."""
    graph = dense_graph(POINTS[:count].double().numpy(), 8)
    degree = graph.sum(1)
    values = np.linalg.eigvalsh(graph / np.sqrt(np.outer(degree, degree)))[::-1]
    embedding = spectral_embedding(POINTS[:count], 5, 8)
    assert np.allclose(embedding.eigenvalues.numpy(), values[:5], atol=1e-5)
    walk = graph / degree[:, None]
    coordinates = embedding.coordinates.numpy()
    assert np.allclose(walk @ coordinates, coordinates * embedding.eigenvalues.numpy(), atol=1e-5)
    assert np.allclose((coordinates**2 * degree[:, None]).sum(0), 1)


def test_components_are_found_however_many_and_the_small_ones_come_last() -> None:
    stream = torch.Generator().manual_seed(0)
    groups = torch.repeat_interleave(torch.arange(8), torch.tensor([700, 600, 100, 100, 100, 100, 100, 12]))
    points = torch.randn(len(groups), 3, generator=stream) + 1000 * groups[:, None]
    embedding = spectral_embedding(points, 7, 10)
    assert torch.allclose(embedding.eigenvalues, torch.ones(7, dtype=torch.float64))
    for group in range(7):
        nonzero = embedding.coordinates[groups == group].abs().amax(0) > 1e-9
        assert nonzero.sum() == 1
    assert not embedding.coordinates[groups == 7].any()


def test_an_extended_training_point_lies_where_it_was_when_its_neighbours_say_so() -> None:
    embedding = spectral_embedding(POINTS, 4, 10)
    distances, index = nearest_neighbours(POINTS, 10)
    placed = embedding.extended(neighbour_weights(distances), index)
    cosine = torch.nn.functional.cosine_similarity(placed, embedding.coordinates)
    assert cosine.median() > 0.99
    assert 0.9 < (placed.norm(dim=1) / embedding.coordinates.norm(dim=1)).median() < 1.1


def test_duplicates_weigh_one_and_the_seed_moves_nothing_but_rounding() -> None:
    assert neighbour_weights(torch.zeros(2, 3)).eq(1).all()
    one, two = (spectral_embedding(POINTS, 4, 10, seed=seed).coordinates for seed in (0, 1))
    assert torch.allclose(one, two, atol=1e-4)
    before = torch.get_rng_state()
    assert torch.equal(one, spectral_embedding(POINTS, 4, 10, seed=0).coordinates)
    assert torch.equal(before, torch.get_rng_state())
    same = spectral_embedding(torch.zeros(20, 3), 3, 5)
    assert torch.isfinite(same.coordinates).all()
    tiny = spectral_embedding(torch.tensor([[0.0], [1.0], [50.0], [51.0]]), 4, 1)
    assert torch.isfinite(tiny.coordinates).all()


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="neighbours must be at most the 2 other points, got 5"):
        nearest_neighbours(POINTS[:3], 5)
    with pytest.raises(UserError, match="dim must be at most the number of points, got 4 for 3"):
        spectral_embedding(POINTS[:3], 4)
    with pytest.raises(UserError, match="points must be finite"):
        nearest_neighbours(POINTS * float("nan"), 2)
    with pytest.raises(UserError, match="neighbours must be an integer of at least 1"):
        nearest_neighbours(POINTS, 0)
