"""The parts of the audit: one lattice bound, the sum below a cut, and tilts of the wrong sign."""

import math

import mpmath
import numpy as np
import pytest
import torch

from lightning_poison.certificates.smoothing.audit import _below, _cells, _lattice_bound
from lightning_poison.certificates.smoothing.chernoff import bounded_at_best_tilt, chernoff, coarse_tilt
from lightning_poison.certificates.smoothing.dense import Margins
from lightning_poison.certificates.smoothing.margins import noise_of_own
from lightning_poison.certificates.smoothing.votes import Pair, Votes


def margins(weights: torch.Tensor, q: float) -> Margins:
    own, nothing = noise_of_own(q, 2), torch.zeros(1, dtype=torch.float64)
    votes = Votes(weights[None], (0, len(weights)))
    return votes.margins(Pair(1, 0, own, own), torch.arange(1), nothing, nothing)


@pytest.mark.parametrize(("first", "second", "spacing"), [(2, 5, 0.7), (2, 10, 0.3), (1, 20, 1.4), (3, 2, 1.1)])
def test_a_coarse_lattice_bounds_the_exact_probability(first: int, second: int, spacing: float) -> None:
    """Cells are as wide as the weights, and what is left over has a mean of many standard deviations under the tilt."""
    q, steps = 0.2, [first] * 300 + [second] * 100
    reach = sum(steps)
    law = np.zeros(2 * reach + 1)
    law[reach] = 1
    for step in steps:
        law = (1 - q) * np.roll(law, step) + q * np.roll(law, -step)
    exact = math.log(law[: reach + 1].sum())
    margin = margins(torch.tensor(steps, dtype=torch.float64), q)
    best = float(coarse_tilt(margin)[0])
    for t in (0.7 * best, best, 1.3 * best):
        assert _lattice_bound(_cells(margin, 0, 1.0, spacing), t) >= exact
        # where weights lie on the lattice nothing is left over, and the bound is exact at every t
        assert _lattice_bound(_cells(margin, 0, 1.0, 0.5), t) == pytest.approx(exact, abs=1e-6)
        assert _lattice_bound(_cells(margin, 0, 1.0, 0.5), t) >= exact - 1e-9


@pytest.mark.parametrize("cut", [-3.0, 0.0, 2.0, 2.5])
def test_the_sum_below_a_cut_includes_the_cut(cut: float) -> None:
    law = torch.zeros(2**16, dtype=torch.float64)
    for place in range(-5, 6):
        law[place] = 1 / 11
    expected = sum(math.exp(0.3 * (1 + place)) / 11 for place in range(-5, 6) if 1 + place <= cut)
    assert _below(law, 0.0, 0.3, 1.0, 1.0, cut) == pytest.approx(expected, rel=1e-12)


def test_a_tilt_of_the_wrong_sign_bounds_nothing() -> None:
    margin = margins(torch.ones(50, dtype=torch.float64), 0.1)
    one = torch.ones(1, dtype=torch.float64)
    assert chernoff(margin, one)[0] < -10
    assert chernoff(margin, -one)[0] == 0
    assert bounded_at_best_tilt(margin, one, lambda *_: one * torch.nan)[0] == 0


@pytest.mark.parametrize("q", [1e-8, 0.05, 0.4999])
def test_the_log_moment_generating_function_is_never_rounded_down(q: float) -> None:
    """Against 40 digits, at the very weights, q and t."""
    stream = torch.Generator().manual_seed(0)
    own, rows = noise_of_own(q, 2), 20
    weights = torch.randn(rows, 150, generator=stream, dtype=torch.float64)
    offset = torch.randn(rows, generator=stream, dtype=torch.float64)
    margin = Votes(weights, (50, 100)).margins(Pair(1, 0, own, own), torch.arange(rows), offset, 0 * offset)
    tilt = torch.randn(rows, generator=stream, dtype=torch.float64) * 3
    with mpmath.workdps(40):
        for row, value in enumerate(margin.log_mgf(tilt).tolist()):
            t, exact = mpmath.mpf(float(tilt[row])), -mpmath.mpf(float(tilt[row])) * mpmath.mpf(float(offset[row]))
            for column, weight in enumerate(weights[row].tolist()):
                step = t * mpmath.mpf(weight) * (-1 if column < 50 else 1)
                exact += mpmath.log((1 - mpmath.mpf(q)) * mpmath.exp(-step) + mpmath.mpf(q) * mpmath.exp(step))
            assert exact <= value <= exact + 1e-8
