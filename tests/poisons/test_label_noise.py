from __future__ import annotations

import pytest
import torch

from lightning_poison.errors import UserError
from lightning_poison.poisons import Candidates, LabelFlips, LabelNoise, NextClass, RandomOther, ToClass, TrainingSet
from tests.poisons.golden import check_golden

DATA = TrainingSet(torch.arange(6000) % 3, 3)


@pytest.mark.parametrize("rate", [0.0, 0.03, 0.5, 1.0])
def test_the_number_of_flips_is_binomial(rate):
    counts = torch.tensor([len(LabelFlips(LabelNoise(rate)).craft(DATA, seed)) for seed in range(100)]).double()
    mean, deviation = 6000 * rate, (6000 * rate * (1 - rate)) ** 0.5
    assert abs(float(counts.mean()) - mean) <= 0.5 * deviation  # five standard errors
    if 0 < rate < 1:
        assert 0.65 * deviation < float(counts.std()) < 1.4 * deviation


def test_flips_of_two_points_are_independent():
    candidates = Candidates.of(TrainingSet(torch.tensor([0, 1, 1]), 2), NextClass(), 0)
    both = first = second = 0
    for seed in range(2000):
        chosen = LabelNoise(0.5).select(candidates, seed)
        hit = torch.isin(torch.tensor([0, 1]), chosen).tolist()
        both, first, second = both + all(hit), first + hit[0], second + hit[1]
    assert abs(both - 500) < 5 * 20
    assert abs(first - 1000) < 5 * 23
    assert abs(second - 1000) < 5 * 23


def test_a_lower_rate_flips_a_part():
    few = set(LabelFlips(LabelNoise(0.1)).craft(DATA, 4).index.tolist())
    assert few < set(LabelFlips(LabelNoise(0.2)).craft(DATA, 4).index.tolist())


def test_only_points_that_can_be_flipped_of_the_named_classes():
    flips = LabelFlips(LabelNoise(1.0, classes=[0, 2]), ToClass(2)).craft(DATA, 0)
    assert flips.old_label.bincount(minlength=3).tolist() == [2000, 0, 0]


def test_arguments_that_cannot_be_meant():
    with pytest.raises(UserError, match=r"rate must lie in \[0, 1\], got 5; for 5 % write 0.05"):
        LabelNoise(5)
    with pytest.raises(UserError, match="classes must be an integer of at least 0"):
        LabelNoise(0.1, classes=[-1])
    with pytest.raises(UserError, match="classes must name at least one class, got an empty list"):
        LabelNoise(0.1, classes=[])
    with pytest.raises(UserError, match=r"classes must lie in \[0, 2\], got 3"):
        LabelFlips(LabelNoise(0.1, classes=[3])).craft(DATA, 0)


def test_golden():
    check_golden("LabelNoise", LabelFlips(LabelNoise(0.05), RandomOther()))
