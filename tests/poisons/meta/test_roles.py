from __future__ import annotations

import pytest
import torch

from lightning_poison.errors import UserError
from lightning_poison.poisons import Candidates, Medoids, NewClass, NextClass, ToClass, TrainingSet
from lightning_poison.poisons.meta.meta_flips import Roles

LABELS = torch.cat([torch.full((size,), label) for label, size in enumerate([40, 60, 20, 80])])[
    torch.randperm(200, generator=torch.Generator().manual_seed(0))
]


def drawn(select, relabel, max_points=1000, outer=20, seed=0) -> tuple[Roles, list]:
    candidates = Candidates.of(TrainingSet(LABELS, 4), relabel, 0)
    shares = select.shares(candidates)
    return Roles.draw(candidates, shares, max_points, outer, seed), shares


@pytest.mark.parametrize("seed", range(3))
def test_every_point_has_one_role(seed):
    roles, _ = drawn(Medoids(per_class=3), NextClass(), seed=seed)
    assert roles.index.tolist() == list(range(200))
    assert sorted([*roles.training.tolist(), *roles.outer.tolist()]) == list(range(200))
    assert not set(roles.outer.tolist()) & set(roles.flippable.tolist())
    assert LABELS[roles.index[roles.outer]].bincount().tolist() == [5, 5, 4, 5]
    assert torch.equal(roles.share, LABELS[roles.index[roles.flippable]])


def test_a_class_pair_looks_at_two_classes():
    roles, _ = drawn(Medoids(per_class=3, classes=[1]), ToClass(3))
    assert LABELS[roles.index].unique().tolist() == [1, 3]
    assert LABELS[roles.index[roles.outer]].unique().tolist() == [1]
    assert LABELS[roles.index[roles.flippable]].unique().tolist() == [1]
    assert LABELS[roles.index[roles.training]].unique().tolist() == [1, 3]


def test_a_new_class_has_no_points():
    roles, _ = drawn(Medoids(per_class=3, classes=[1]), NewClass())
    assert LABELS[roles.index].unique().tolist() == [1]


def test_large_data_are_thinned_class_by_class():
    roles, _ = drawn(Medoids(per_class=2), NextClass(), max_points=100)
    assert LABELS[roles.index].bincount().tolist() == [20, 30, 10, 40]
    assert (roles.index.diff() > 0).all()


def test_thinning_leaves_twice_the_budget():
    roles, shares = drawn(Medoids(count=18, classes=[2]), ToClass(3), max_points=40)
    assert int((LABELS[roles.index] == 2).sum()) == 20
    assert len(roles.flippable) >= shares[0].budget


@pytest.mark.parametrize("budget", [17, 19])
def test_outer_points_leave_the_budget(budget):
    roles, _ = drawn(Medoids(count=budget, classes=[2]), NextClass())
    assert len(roles.flippable) >= budget
    assert len(roles.outer) == min(4, 20 - budget)


def test_a_budget_too_large_for_a_part_of_the_data():
    with pytest.raises(UserError, match="max_points must be at least twice the 80 flips, got 100"):
        drawn(Medoids(per_class=20, classes=[0, 1, 2, 3]), NextClass(), max_points=100)
