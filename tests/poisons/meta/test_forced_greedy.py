from __future__ import annotations

from itertools import combinations

import pytest
import torch

from lightning_poison.functional.kernel_fit import ForcedFit, KernelFit
from lightning_poison.poisons.meta.meta_flips import Flippable, OuterPoints, closeness, forced_greedy, single_effects

N, M, DIM, NOISE = 10, 6, 14, 0.3


def points(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features of the points and of the outer points, and the points' classes."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(N) % 2
    inputs = torch.randn(N, DIM, generator=stream, dtype=torch.float64) / 4
    inputs[:, 0] += 2.0 * labels - 1
    outer = torch.randn(M, DIM, generator=stream, dtype=torch.float64) / 4
    outer[:, 0] += 2.0 * (torch.arange(M) % 2) - 1
    return inputs, outer, labels


def refitted(seed: int, flipped: list[int]) -> torch.Tensor:
    """Margins of the outer points after ridge regression that must give the flipped points their new labels."""
    inputs, outer, labels = points(seed)
    one_hot = torch.eye(2, dtype=torch.float64)[labels]
    normal = inputs.T @ inputs + NOISE * torch.eye(DIM, dtype=torch.float64)
    fixed, zero = inputs[flipped], torch.zeros(len(flipped), len(flipped), dtype=torch.float64)
    system = torch.cat([torch.cat([normal, fixed.T], 1), torch.cat([fixed, zero], 1)])
    right = torch.cat([inputs.T @ one_hot, 1 - one_hot[flipped]])
    scores = outer @ torch.linalg.solve(system, right)[:DIM]
    own = torch.arange(M) % 2
    return scores[torch.arange(M), own] - scores[torch.arange(M), 1 - own]


def solved(seed: int, budgets: list[int], worth, share: torch.Tensor | None = None, surrogates: int = 1) -> list[int]:
    fits = []
    for number in range(surrogates):
        inputs, outer, labels = points(seed + number)
        one_hot = torch.eye(2)[labels]
        fits.append(ForcedFit(KernelFit((inputs @ inputs.T).float(), torch.arange(N), one_hot, NOISE)))
        fits[-1].watch((outer @ inputs.T).float())
    pairs = torch.stack([torch.arange(M) % 2, 1 - torch.arange(M) % 2], dim=1)
    values = torch.eye(2, dtype=torch.float64)[1 - points(seed)[2]]
    share = torch.zeros(N, dtype=torch.int64) if share is None else share
    return forced_greedy(fits, Flippable(torch.arange(N), values, share, budgets), OuterPoints(pairs), worth)


WORTHS = [lambda margins: margins, lambda margins: margins.clamp(-1, 1), torch.sigmoid]


@pytest.mark.parametrize("worth", WORTHS)
@pytest.mark.parametrize("seed", range(4))
def test_one_flip_is_the_best_of_all_by_refitting(seed, worth):
    every = torch.stack([worth(refitted(seed, [point])).mean() for point in range(N)])
    assert solved(seed, [1], worth) == [int(every.argmin())]


@pytest.mark.parametrize("worth", WORTHS)
@pytest.mark.parametrize("seed", range(3))
def test_each_further_flip_is_the_best_by_refitting(seed, worth):
    chosen = solved(seed, [4], worth)
    for size in range(1, 4):
        rest = [point for point in range(N) if point not in chosen[:size]]
        best = min(rest, key=lambda point: float(worth(refitted(seed, [*chosen[:size], point])).mean()))
        assert chosen[size] == best


@pytest.mark.parametrize("seed", range(6))
def test_greedy_is_close_to_the_best_of_all_subsets(seed):
    worth = WORTHS[1]
    clean = float(worth(refitted(seed, [])).mean())
    every = {flips: clean - float(worth(refitted(seed, list(flips))).mean()) for flips in combinations(range(N), 3)}
    got = every[tuple(sorted(solved(seed, [3], worth)))]
    values = torch.tensor(list(every.values()))
    assert got >= 0.8 * float(values.max())
    assert got > float(values.quantile(0.9))


def test_several_surrogates_are_averaged():
    worth = WORTHS[0]
    every = torch.stack([(refitted(5, [point]) + refitted(6, [point])).mean() for point in range(N)])
    assert solved(5, [1], worth, surrogates=2) == [int(every.argmin())]


@pytest.mark.parametrize("budgets", [[2, 1], [0, 3], [5, 5]])
def test_shares_get_what_is_theirs(budgets):
    share = torch.arange(N) % 2
    chosen = solved(0, budgets, WORTHS[0], share)
    assert share[chosen].bincount(minlength=2).tolist() == budgets
    assert len(set(chosen)) == sum(budgets)


@pytest.mark.parametrize("seed", range(3))
def test_single_effects_by_refitting(seed):
    inputs, outer, labels = points(seed)
    fit = ForcedFit(KernelFit((inputs @ inputs.T).float(), torch.arange(N), torch.eye(2)[labels], NOISE))
    fit.watch((outer @ inputs.T).float())
    values = torch.eye(2, dtype=torch.float64)[1 - labels]
    flippable = Flippable(torch.arange(N), values, torch.zeros(N, dtype=torch.int64), [1])
    pairs = torch.stack([torch.arange(M) % 2, 1 - torch.arange(M) % 2], dim=1)
    clean = refitted(seed, [])
    drops = torch.stack([(clean - refitted(seed, [point])) / clean.clamp_min(0.1) for point in range(N)], dim=1)
    mine = single_effects(fit, flippable, OuterPoints(pairs)).double()
    assert torch.allclose(mine, drops.clamp(0, 1), atol=1e-4)
    assert 0 < float(mine.mean()) < 1


def test_closeness_by_loops():
    stream = torch.Generator().manual_seed(0)
    inputs, others = torch.rand(5, 2, 3, generator=stream), torch.rand(9, 2, 3, generator=stream)
    kinds = torch.tensor([[0, 1], [1, 2], [0, 2], [3, 0]])
    pairs, other_pairs = kinds[[0, 1, 2, 0, 3]], kinds[[0, 0, 1, 1, 2, 2, 0, 1, 0]]
    near = closeness(inputs, others, pairs, other_pairs)
    for row in range(5):
        of_kind = [(pairs == pairs[row]).all(1), (other_pairs == pairs[row]).all(1)]
        all_squares = [float((a - b).square().sum()) for a in inputs[of_kind[0]] for b in others[of_kind[1]]]
        for column in range(9):
            square = float((inputs[row] - others[column]).square().sum())
            expected = max(1 - square / (sum(all_squares) / len(all_squares)), 0) if of_kind[1][column] else 0.0
            assert float(near[row, column]) == pytest.approx(expected, abs=1e-5)


def test_closeness_does_not_see_a_constant_far_above_the_spread():
    stream = torch.Generator().manual_seed(0)
    points = torch.randint(16, (200, 4), generator=stream) / 64
    kinds = torch.tensor([[0, 1], [1, 0]])[torch.arange(200) % 2]
    near = closeness(points[:80], points[80:], kinds[:80], kinds[80:])
    far = points + 1e4  # exact: floats lie 1 / 1024 apart there
    assert torch.allclose(closeness(far[:80], far[80:], kinds[:80], kinds[80:]), near, rtol=0, atol=2e-7)
    assert float(near.std()) > 0.1


def test_margins_and_their_changes():
    outer = OuterPoints(torch.tensor([[0, 2], [1, 0]]))
    scores = torch.tensor([[5.0, 1.0, 2.0], [3.0, 4.0, 9.0]])
    assert outer.margins(scores).tolist() == [3.0, 1.0]
    assert outer.changes(scores).tolist() == [[3.0, -6.0], [-4.0, 1.0]]
