from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from lightning_poison.functional.norms import named_norm
from lightning_poison.poisons.points.clean_label import spend, within


@pytest.mark.parametrize("seed", range(20))
def test_the_budget_is_spent_as_the_linear_programme_says(seed):
    random = np.random.default_rng(seed)
    gain, size = random.normal(0.5, 1, 8), random.uniform(0.1, 2, 8)
    total = float(random.uniform(0, 8))
    solved = linprog(-gain, A_ub=size[None], b_ub=[total], bounds=(0, 1))
    shares = spend(torch.tensor(gain), torch.tensor(size), total)
    assert float(shares @ torch.tensor(gain)) == pytest.approx(-solved.fun, abs=1e-9)
    assert float(shares @ torch.tensor(size)) <= total + 1e-12
    assert ((shares >= 0) & (shares <= 1)).all()


def test_equal_ratios_go_by_position_and_nothing_gained_is_nothing_spent():
    shares = spend(torch.tensor([1.0, 1.0, 0.0, -1.0, 1.0]), torch.ones(5), total=2.25)
    assert shares.tolist() == [1, 1, 0, 0, 0.25]
    assert spend(torch.zeros(0), torch.zeros(0), total=1.0).tolist() == []


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_what_is_stored_keeps_the_bound(norm):
    size = named_norm(norm).size
    stream = torch.Generator().manual_seed(0)
    inputs = torch.rand(200, 3, 5, 5, generator=stream)
    perturbation = torch.randn(200, 3, 5, 5, generator=stream)
    bound = torch.logspace(-7, 1, 200, dtype=torch.float64)
    moved = within(inputs, perturbation, bound, size)
    actual = size(moved.double() - inputs.double())
    assert moved.dtype == torch.float32
    assert (actual <= bound).all()
    wanted = torch.minimum(bound, size(perturbation.double()))
    large = bound > 1e-3
    assert (actual[large] >= wanted[large] * (1 - 1e-3)).all()
    exactly = within(inputs, torch.zeros_like(inputs), torch.zeros(200), size)
    assert torch.equal(exactly, inputs)
