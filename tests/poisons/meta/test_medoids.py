from __future__ import annotations

from itertools import combinations

import pytest
import torch

from lightning_poison.errors import UserError
from lightning_poison.poisons import LabelFlips, Medoids, NewClass, ToClass, TrainingSet
from tests.poisons.golden import check_golden


def blobs(sizes: list[int], spread: float = 0.05, dim: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around well separated centres, and the number of their blob."""
    stream = torch.Generator().manual_seed(seed)
    which = torch.cat([torch.full((size,), number) for number, size in enumerate(sizes)])
    which = which[torch.randperm(len(which), generator=stream)]
    centres = 5 * torch.eye(len(sizes), dim)
    return centres[which] + spread * torch.randn(len(which), dim, generator=stream), which


def data(inputs: torch.Tensor, labels: torch.Tensor, num_classes: int) -> TrainingSet:
    return TrainingSet(labels, num_classes, dataset=list(zip(inputs, labels.tolist(), strict=True)))


def flipped(select: Medoids, training_set: TrainingSet, seed: int = 0, relabel=None) -> list[int]:
    return LabelFlips(select, relabel).craft(training_set, seed).index.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_the_point_nearest_the_mean_of_each_blob(seed):
    inputs, which = blobs([20, 7, 12])
    chosen = flipped(Medoids(count=3), data(inputs, torch.zeros(39, dtype=torch.int64), 2), seed)
    expected = []
    for number in range(3):
        rows = (which == number).nonzero()[:, 0]
        distances = (inputs[rows] - inputs[rows].mean(0)).norm(dim=1)
        expected.append(int(rows[distances.argmin()]))
    assert chosen == sorted(expected)


def test_each_class_is_clustered_by_itself():
    inputs, which = blobs([20, 20])
    labels = torch.arange(40) % 2
    chosen = torch.tensor(flipped(Medoids(per_class=2), data(inputs, labels, 2)))
    pairs = {(int(labels[row]), int(which[row])) for row in chosen}
    assert pairs == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_clusters_are_the_tightest_that_exist():
    inputs = torch.rand(9, 2, generator=torch.Generator().manual_seed(3))
    chosen = flipped(Medoids(count=2), data(inputs, torch.zeros(9, dtype=torch.int64), 2))
    splits = [set(rows) for size in range(1, 9) for rows in combinations(range(9), size) if 0 in rows]

    def spread(rows: set[int]) -> float:
        parts = [inputs[sorted(rows)], inputs[sorted(set(range(9)) - rows)]]
        return float(sum((part - part.mean(0)).square().sum() for part in parts))

    best = min(splits, key=spread)
    expected = []
    for rows in (sorted(best), sorted(set(range(9)) - best)):
        centre = inputs[rows].mean(0)
        expected.append(int((inputs - centre).norm(dim=1).argmin()))
    assert chosen == sorted(expected)


def test_swaps_end_where_no_exchange_in_a_class_helps():
    inputs = torch.rand(60, 4, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(60) % 2
    chosen = flipped(Medoids(per_class=3, swaps=50), data(inputs, labels, 2))
    assert labels[chosen].bincount().tolist() == [3, 3]

    def cost(rows: list[int]) -> float:
        own = labels[:, None] == labels[rows]
        squares = (inputs[:, None] - inputs[rows]).double().square().sum(-1)
        return float(squares.masked_fill(~own, torch.inf).amin(1).sum())

    lowest = cost(chosen)
    assert lowest < cost(flipped(Medoids(per_class=3), data(inputs, labels, 2)))
    for place, old in enumerate(chosen):
        for new in (labels == labels[old]).nonzero()[:, 0].tolist():
            assert cost([*chosen[:place], new, *chosen[place + 1 :]]) > lowest - 1e-9


@pytest.mark.parametrize("budget", [1, 4, 5, 6])
def test_equal_inputs_are_never_taken_twice(budget):
    inputs = torch.tensor([[0.0], [0.0], [0.0], [1.0], [1.0], [1.0]])
    chosen = flipped(Medoids(count=budget), data(inputs, torch.zeros(6, dtype=torch.int64), 2))
    assert len(set(chosen)) == budget
    if budget == 4:
        assert chosen == [0, 1, 3, 4]


def test_of_equally_near_points_the_first():
    inputs = torch.tensor([[-1.0], [1.0], [-1.0], [1.0]])
    assert flipped(Medoids(count=1), data(inputs, torch.zeros(4, dtype=torch.int64), 2)) == [0]


def test_budgets_of_nothing_and_of_everything_need_no_inputs():
    training_set = TrainingSet(torch.arange(10) % 2, 2)
    assert flipped(Medoids(per_class=0), training_set) == []
    assert flipped(Medoids(per_class=5), training_set) == list(range(10))
    with pytest.raises(UserError, match="looks at the inputs"):
        flipped(Medoids(per_class=1), training_set)


@pytest.mark.parametrize("relabel", [ToClass(0), NewClass()])
def test_only_points_that_can_be_flipped(relabel):
    inputs, which = blobs([6, 8])
    chosen = flipped(Medoids(per_class=3), data(inputs, which, 2), relabel=relabel)
    assert which[chosen].bincount(minlength=2).tolist() == ([0, 3] if isinstance(relabel, ToClass) else [3, 3])


def test_too_large_a_budget_names_the_class():
    inputs, which = blobs([6, 8])
    with pytest.raises(UserError, match="got 7 and class 0 has 6 points"):
        flipped(Medoids(per_class=7), data(inputs, which, 2))


def test_the_global_state_is_neither_used_nor_moved():
    inputs, which = blobs([30, 30])
    training_set = data(inputs.repeat_interleave(2, dim=0), which.repeat_interleave(2), 2)
    first = flipped(Medoids(per_class=5), training_set)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert flipped(Medoids(per_class=5), training_set) == first
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("budget", [{"count": 3}, {"per_class": 3}])
@pytest.mark.parametrize("seed", range(3))
def test_a_constant_far_above_the_spread_changes_nothing(budget, seed):
    inputs, _ = blobs([20, 8, 12], seed=seed)
    inputs = (inputs * 1024).round() / 1024
    far = inputs + 1e4  # exact: floats lie 1 / 1024 apart there
    assert torch.equal(far - 1e4, inputs)
    labels = torch.arange(40) % 2
    expected = flipped(Medoids(**budget), data(inputs, labels, 2))
    assert flipped(Medoids(**budget), data(far, labels, 2)) == expected


def test_golden():
    check_golden("Medoids", LabelFlips(Medoids(per_class=3)))
    check_golden("MedoidsSwapped", LabelFlips(Medoids(per_class=3, swaps=20)))
