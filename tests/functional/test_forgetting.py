from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from lightning_poison.functional.forgetting import forgetting_events


@pytest.mark.parametrize("looks", [1, 2, 7])
def test_events_are_those_counted_by_hand(looks):
    right = torch.rand(looks, 40, generator=torch.Generator().manual_seed(looks)) < 0.5
    expected = [sum(before and not after for before, after in pairwise(column)) for column in right.T.tolist()]
    assert forgetting_events(right).tolist() == expected


def test_what_was_never_right_cannot_be_forgotten():
    assert forgetting_events(torch.zeros(5, 3, dtype=torch.bool)).tolist() == [0, 0, 0]
