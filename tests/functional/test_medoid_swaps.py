"""Exchanges of medoids against enumeration."""

from itertools import combinations

import pytest
import torch

from lightning_poison.functional import coverage
from lightning_poison.functional.coverage import swap_medoids


def some_points(count=9, dim=2, seed=0):
    return torch.rand(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cost(points, chosen):
    return float((points[:, None] - points[list(chosen)]).square().sum(-1).amin(1).sum())


@pytest.mark.parametrize("places", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_each_exchange_is_the_best_there_is(places, seed, monkeypatch):
    monkeypatch.setattr(coverage, "_BLOCK", 20)  # two columns at a time
    points, chosen = some_points(seed=seed), list(range(places))
    while True:
        options = {
            (other, place): cost(points, [*chosen[:place], other, *chosen[place + 1 :]])
            for other in range(9)
            for place in range(places)
            if other not in chosen
        }
        best = min(options, key=options.__getitem__)
        swapped = swap_medoids(points, torch.tensor(chosen), 1).tolist()
        if options[best] >= cost(points, chosen) - 1e-12:
            assert swapped == chosen
            break
        chosen[best[1]] = best[0]
        assert swapped == chosen
    assert swap_medoids(points, torch.arange(places), 100).tolist() == chosen


def test_well_separated_groups_end_in_the_best_set_of_all():
    points = torch.cat([some_points(6, seed=seed) + 10 * seed for seed in range(3)])
    chosen = swap_medoids(points, torch.tensor([0, 1, 2]), 50)
    best = min(combinations(range(18), 3), key=lambda rows: cost(points, rows))
    assert sorted(chosen.tolist()) == list(best)


def test_no_more_exchanges_than_allowed():
    points = torch.cat([some_points(6, seed=seed) + 10 * seed for seed in range(3)])
    assert swap_medoids(points, torch.tensor([0, 1, 2]), 0).tolist() == [0, 1, 2]
    once = swap_medoids(points, torch.tensor([0, 1, 2]), 1)
    assert int((once != torch.tensor([0, 1, 2])).sum()) == 1


def test_of_equal_points_the_first_and_none_twice():
    points = torch.tensor([[0.0], [4.0], [4.0], [8.0], [8.0], [8.0]], dtype=torch.float64)
    assert swap_medoids(points, torch.tensor([0, 1]), 9).tolist() == [3, 1]
    nearly = torch.tensor([[0.0], [4.0 + 1e-12], [4.0], [5.0]], dtype=torch.float64)  # the third is best, by rounding
    assert swap_medoids(nearly, torch.tensor([0]), 9).tolist() == [1]
    same = torch.zeros(4, 2, dtype=torch.float64)
    assert swap_medoids(same, torch.tensor([2, 3]), 9).tolist() == [2, 3]


def test_a_constant_far_above_the_spread_changes_nothing():
    points = (some_points(40, 3) * 1024).round() / 1024
    far = points + 2.0**33
    assert torch.equal(far - 2.0**33, points)
    assert swap_medoids(far, torch.arange(4), 99).equal(swap_medoids(points, torch.arange(4), 99))
