from __future__ import annotations

import pytest
import torch

from lightning_poison.functional.class_graph import order_ranks, quantile_buckets, width_buckets


def test_ranks_are_those_of_sorted_tuples():
    stream = torch.Generator().manual_seed(0)
    for _ in range(50):
        first = torch.randint(0, 4, (30,), generator=stream)
        second = torch.randint(0, 3, (30,), generator=stream).double() / 7
        order = sorted(range(30), key=lambda row: (int(first[row]), float(second[row]), row))
        expected = [order.index(row) for row in range(30)]
        assert order_ranks(first, second).tolist() == expected


@pytest.mark.parametrize("points", [0, 1, 5, 6, 7, 59, 60])
@pytest.mark.parametrize("buckets", [1, 2, 6])
def test_quantile_buckets_are_slices_of_equal_size(points, buckets):
    ranks = torch.randperm(points, generator=torch.Generator().manual_seed(points))
    found = quantile_buckets(ranks, buckets)
    by_rank = found[torch.argsort(ranks)].tolist()
    assert by_rank == sorted(by_rank)
    sizes = [by_rank.count(number) for number in range(buckets)]
    assert sum(sizes) == points
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("low", "high", "buckets"), [(0, 9, 5), (3, 40, 6), (7, 7, 3), (0, 1, 4), (2, 12, 11)])
def test_width_buckets_are_ranges_of_lengths(low, high, buckets):
    lengths = torch.arange(low, high + 1)
    found = width_buckets(lengths, torch.ones_like(lengths, dtype=torch.bool), buckets).tolist()
    edges = [low + (high - low + 1) * number / buckets for number in range(buckets + 1)]
    for length, number in zip(lengths.tolist(), found, strict=True):
        assert edges[number] <= length + 1e-9
        assert length < edges[number + 1] + 1e-9


def test_paths_that_did_not_end_do_not_stretch_the_range():
    lengths = torch.tensor([4, 5, 6, 7, 200])
    reached = torch.tensor([True, True, True, True, False])
    assert width_buckets(lengths, reached, 4).tolist() == [0, 1, 2, 3, 3]
