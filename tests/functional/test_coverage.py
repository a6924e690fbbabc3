from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch

from lightning_poison.functional.coverage import cover


def total(service: torch.Tensor, chosen) -> float:
    return float(service[:, list(chosen)].amax(dim=1).sum()) if len(chosen) else 0.0


def problem(seed: int, customers: int = 7, candidates: int = 8) -> torch.Tensor:
    return torch.rand(customers, candidates, generator=torch.Generator().manual_seed(seed)) ** 2


def every_choice(group: torch.Tensor, budgets: list[int]):
    for chosen in combinations(range(len(group)), sum(budgets)):
        if group[list(chosen)].bincount(minlength=len(budgets)).tolist() == budgets:
            yield chosen


@pytest.mark.parametrize("budgets", [[1], [2], [3], [8]])
@pytest.mark.parametrize("seed", range(20))
def test_against_all_subsets(seed, budgets):
    service, group = problem(seed), torch.zeros(8, dtype=torch.int64)
    best = max(total(service, chosen) for chosen in every_choice(group, budgets))
    greedy = total(service, cover(service, group, budgets, rounds=0))
    got = total(service, cover(service, group, budgets))
    assert greedy >= (1 - 1 / math.e) * best
    assert greedy - 1e-5 <= got <= best + 1e-5
    assert got >= 0.9 * best
    if budgets in ([1], [8]):
        assert got == pytest.approx(best)


@pytest.mark.parametrize("seed", range(10))
def test_groups_keep_their_budgets(seed):
    service, group, budgets = problem(seed), torch.arange(8) % 3, [1, 2, 0]
    chosen = cover(service, group, budgets)
    assert group[chosen].bincount(minlength=3).tolist() == budgets
    best = max(total(service, subset) for subset in every_choice(group, budgets))
    assert total(service, chosen) >= 0.9 * best


@pytest.mark.parametrize("seed", range(10))
def test_no_exchange_is_left(seed):
    service, group = problem(seed, 20, 15), torch.arange(15) % 2
    chosen = cover(service, group, [2, 2], rounds=50).tolist()
    for place, old in enumerate(chosen):
        for new in set(range(15)) - set(chosen):
            if group[new] == group[old]:
                assert total(service, [*chosen[:place], new, *chosen[place + 1 :]]) <= total(service, chosen) + 1e-3


def test_exchanges_improve_on_greed():
    better = 0
    for seed in range(40):
        service, group = problem(seed, 12, 20), torch.zeros(20, dtype=torch.int64)
        greedy, swapped = (total(service, cover(service, group, [3], rounds=rounds)) for rounds in (0, 9))
        assert swapped >= greedy - 1e-5
        better += swapped > greedy + 1e-5
    assert better > 3


def test_of_equals_the_first_and_nothing_twice():
    chosen = cover(torch.ones(4, 6), torch.zeros(6, dtype=torch.int64), [4])
    assert sorted(chosen.tolist()) == [0, 1, 2, 3]
    assert cover(torch.zeros(3, 5), torch.zeros(5, dtype=torch.int64), [2]).tolist() == [0, 1]
    assert cover(torch.rand(3, 5), torch.zeros(5, dtype=torch.int64), [0]).tolist() == []
    assert cover(torch.zeros(0, 3), torch.zeros(3, dtype=torch.int64), [2]).tolist() == [0, 1]


def test_noise_in_the_last_bits_does_not_matter():
    service = problem(3, 30, 25).repeat(1, 2)
    noisy = service * (1 + 1e-7 * torch.randn(service.shape, generator=torch.Generator().manual_seed(0)))
    group = torch.zeros(50, dtype=torch.int64)
    assert torch.equal(cover(service, group, [6]), cover(noisy, group, [6]))
