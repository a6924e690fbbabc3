"""Confidence bounds against exact binomial tails."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from scipy.stats import binomtest

from lightning_poison.errors import UserError
from lightning_poison.functional.intervals import binomial_lower, binomial_upper, log_binomial_upper


def at_most(k: int, n: int, p: Fraction) -> Fraction:
    return sum((math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)), start=Fraction(0))


@pytest.mark.parametrize("alpha", [0.3, 0.05, 1e-3, 1e-9])
@pytest.mark.parametrize("n", [1, 2, 7, 60])
def test_bounds_hold_exactly_and_no_tighter_ones_do(n, alpha):
    counts = torch.arange(n + 1)
    upper, lower = binomial_upper(counts, n, alpha).tolist(), binomial_lower(counts, n, alpha).tolist()
    tight = Fraction(1, 10**7)
    for k, (high, low) in enumerate(zip(upper, lower, strict=True)):
        exact = Fraction(alpha)
        if k == n:
            assert high == 1
        else:
            assert at_most(k, n, Fraction(high)) <= exact
            assert at_most(k, n, Fraction(high) * (1 - tight)) > exact
        if k == 0:
            assert low == 0
        else:
            assert 1 - at_most(k - 1, n, Fraction(low)) <= exact
            assert 1 - at_most(k - 1, n, Fraction(low) * (1 + tight)) > exact


@pytest.mark.parametrize(("k", "n"), [(0, 1000), (3, 2000), (990, 1000), (1000, 1000)])
def test_larger_samples_give_scipys_interval(k, n):
    interval = binomtest(k, n).proportion_ci(0.998, method="exact")
    low, high = float(binomial_lower(torch.tensor(k), n, 0.001)), float(binomial_upper(torch.tensor(k), n, 0.001))
    assert (low, high) == pytest.approx((interval.low, interval.high), rel=1e-7)


def test_a_hundred_thousand_trials():
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.dps = 40
    n, alpha = 100_000, 0.001
    for k in (1, 50, 5000):
        p = mpmath.mpf(float(binomial_upper(torch.tensor(k), n, alpha)))
        term = total = mpmath.exp(n * mpmath.log(1 - p))
        for i in range(k):
            term *= (n - i) / mpmath.mpf(i + 1) * p / (1 - p)
            total += term
        assert mpmath.mpf(alpha) * (1 - mpmath.mpf("1e-6")) < total <= mpmath.mpf(alpha)


def test_one_number_of_trials_for_each():
    counts, trials = torch.tensor([0, 3]), torch.tensor([10, 20])
    each = [float(binomial_upper(counts[i : i + 1], int(trials[i]), 0.01)) for i in range(2)]
    assert binomial_upper(counts, trials, 0.01).tolist() == each


def test_logarithm_is_rounded_up():
    mpmath = pytest.importorskip("mpmath")
    counts = torch.tensor([0, 1, 17, 999, 1000])
    bounds, logs = binomial_upper(counts, 1000, 1e-6), log_binomial_upper(counts, 1000, 1e-6)
    for bound, log in zip(bounds.tolist(), logs.tolist(), strict=True):
        assert mpmath.log(mpmath.mpf(bound)) <= log <= 0
        assert math.exp(log) == pytest.approx(bound, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan, 1])
def test_alpha_that_makes_no_sense(alpha):
    with pytest.raises(UserError, match="alpha must lie strictly between 0 and 1"):
        binomial_upper(torch.tensor([1]), 2, alpha)


@pytest.mark.parametrize(("counts", "trials"), [([3], 2), ([-1], 2), ([0], 0), ([0.5], 2)])
def test_counts_that_make_no_sense(counts, trials):
    with pytest.raises(UserError, match="counts must be integers"):
        binomial_lower(torch.tensor(counts), trials, 0.1)


@pytest.mark.parametrize("n", [5, 10, 1000, 10**9])
def test_where_scipy_finds_no_bound_it_says_nothing(n):
    counts = torch.tensor([0, 1, 2, 4, n // 2, n - 2, n - 1, n]).unique()
    for alpha in (1e-100, 1e-300, 1e-310):
        upper, lower = binomial_upper(counts, n, alpha), binomial_lower(counts, n, alpha)
        assert not upper.isnan().any()
        assert not lower.isnan().any()
        assert ((counts / n <= upper) & (upper <= 1)).all()
        assert ((counts / n >= lower) & (lower >= 0)).all()
