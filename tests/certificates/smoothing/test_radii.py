"""Radii of smoothed predictions against exact arithmetic, and against the worst case enumerated."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from functools import cache

import pytest
import torch

from lightning_poison.certificates.smoothing.thresholds import kl_radius, kl_thresholds, tight_radius, tight_thresholds
from lightning_poison.errors import UserError

mpmath = pytest.importorskip("mpmath")
mpmath.mp.dps = 60

NOISES = [(1e-8, 2), (0.01, 2), (0.25, 2), (0.3, 2), (0.4999, 2), (1e-8, 3), (0.05, 3), (0.45, 4), (0.66, 3), (0.3, 10)]


def exact_log(value: Fraction):
    return mpmath.log(mpmath.mpf(value.numerator) / mpmath.mpf(value.denominator))


def outcomes(r: int, q: float, num_classes: int) -> list[tuple[Fraction, Fraction]]:
    """Probabilities under the labels as they are and as they are changed, of every draw (K = 2 or small r)."""
    q, others = Fraction(q), num_classes - 1
    flips = []
    for draw in itertools.product(range(num_classes), repeat=r):  # label 0 is changed to 1
        mu = math.prod([1 - q if label == 0 else q / others for label in draw], start=Fraction(1))
        rho = math.prod([1 - q if label == 1 else q / others for label in draw], start=Fraction(1))
        flips.append((mu, rho))
    return flips


def counted_outcomes(r: int, q: float, num_classes: int) -> list[tuple[Fraction, Fraction]]:
    """The same, draws of equal probability added up."""
    q, others = Fraction(q), num_classes - 1
    each = []
    for original in range(r + 1):
        for changed in range(r + 1 - original):
            rest = r - original - changed
            if num_classes == 2 and rest:
                continue
            ways = math.comb(r, original) * math.comb(r - original, changed) * (others - 1) ** rest
            mu = (1 - q) ** original * (q / others) ** (changed + rest)
            rho = (1 - q) ** changed * (q / others) ** (original + rest)
            each.append((ways * mu, ways * rho))
    return each


def neyman_pearson(pairs: list[tuple[Fraction, Fraction]], level: Fraction = Fraction(1, 2)) -> Fraction:
    """The least probability under the first law of an event whose probability under the second is ``level``."""
    total = Fraction(0)
    for mu, rho in sorted(pairs, key=lambda pair: pair[0] / pair[1]):
        share = min(Fraction(1), level / rho)
        total, level = total + share * mu, level - share * rho
        if level == 0:
            return total
    raise AssertionError


@cache
def exact_thresholds(q: float, num_classes: int, last: int) -> list[Fraction]:
    return [neyman_pearson(counted_outcomes(r, q, num_classes)) for r in range(last + 1)]


@pytest.mark.parametrize(("q", "num_classes"), NOISES)
def test_counting_draws_is_enumerating_them(q, num_classes):
    for r in range(5 if num_classes > 3 else 7):
        if num_classes**r <= 3000:
            every = neyman_pearson(outcomes(r, q, num_classes))
            assert every == neyman_pearson(counted_outcomes(r, q, num_classes))


@pytest.mark.parametrize(("q", "num_classes"), NOISES)
def test_thresholds_are_the_exact_ones_rounded_down(q, num_classes):
    last = 60 if num_classes == 2 else 25
    table = tight_thresholds(torch.arange(last + 1), q, num_classes).tolist()
    for r, (ours, exact) in enumerate(zip(table, exact_thresholds(q, num_classes, last), strict=True)):
        error = mpmath.mpf(ours) - exact_log(exact)
        assert -1e-10 < error < 0 or (r == 0 and abs(error) < 1e-15), (r, float(error))


@pytest.mark.parametrize(("q", "r"), [(0.01, 601), (0.3, 300), (0.4999, 401)])
def test_thresholds_of_many_flips_are_exact(q, r):
    exact = exact_log(neyman_pearson(counted_outcomes(r, q, 2)))
    error = mpmath.mpf(float(tight_thresholds(torch.tensor([r]), q, 2)[0])) - exact
    assert -1e-8 < error < 0


@pytest.mark.parametrize(("q", "num_classes"), NOISES)
def test_radius_is_the_largest_one_that_the_worst_case_allows(q, num_classes):
    last = 60 if num_classes == 2 else 25
    exact = exact_thresholds(q, num_classes, last)
    for r in range(1, last):
        logs = float(exact_log(exact[r]))
        near = torch.tensor([logs - 1e-9, logs, logs + 1e-9], dtype=torch.float64)
        below, at, above = tight_radius(near, q, num_classes, max_radius=1000).tolist()
        assert below == r
        assert above == r - 1
        assert at == r - 1, "equality is a tie and counts against us"


@pytest.mark.parametrize(("q", "num_classes"), NOISES)
def test_an_error_that_equals_the_threshold_is_one_too_many(q, num_classes):
    """To the last bit: what is certified for r changes must stay *below* the entry of the table."""
    last = 40
    table = tight_thresholds(torch.arange(last + 1), q, num_classes)
    at = tight_radius(table[1:], q, num_classes, max_radius=last)
    below = tight_radius(table[1:].nextafter(torch.tensor(-torch.inf).double()), q, num_classes, max_radius=last)
    assert (at == torch.arange(last)).all()
    assert (below == torch.arange(1, last + 1)).all()


@pytest.mark.parametrize(("q", "num_classes"), NOISES)
def test_a_prediction_that_changes_has_no_larger_radius(q, num_classes):
    """Events over a few labels, chosen at random: changing r of the labels must not make a certified one unlikely."""
    generator = torch.Generator().manual_seed(0)
    length = 6 if num_classes == 2 else 4 if num_classes < 5 else 2
    keep, flip = 1 - q, q / (num_classes - 1)
    draws = torch.tensor(list(itertools.product(range(num_classes), repeat=length)))
    agree = (draws[:, None, :] == draws[None, :, :]).double()  # (labels, draws, length)
    law = (agree * keep + (1 - agree) * flip).prod(-1)
    changes = (draws != draws[0]).sum(1)
    for _ in range(200):
        threshold = torch.rand(1, generator=generator)
        event = torch.rand(len(draws), generator=generator) > threshold
        log_error = (law[0] * ~event).sum().log()[None].nan_to_num(neginf=-torch.inf) + 1e-14
        radius = int(tight_radius(log_error, q, num_classes, max_radius=length)[0])
        if float(log_error[0]) < math.log(0.5):
            assert ((law * event).sum(1)[changes <= radius] > 0.5 - 1e-12).all()
        else:
            assert radius == 0


@pytest.mark.parametrize(("q", "num_classes"), NOISES)
def test_kl_radius_against_exact_arithmetic(q, num_classes):
    quotient = mpmath.mpf(q)
    divergence = (1 - num_classes * quotient / (num_classes - 1)) * mpmath.log(
        (1 - quotient) * (num_classes - 1) / quotient
    )
    for log_error in [-0.7, -1.0, -3.3, -50.0, -1234.5, -8e4]:
        error = mpmath.exp(mpmath.mpf(log_error))
        reach = -mpmath.log(4 * error * (1 - error)) / 2
        expected = max(0, int(mpmath.ceil(reach / divergence)) - 1)
        ours = int(kl_radius(torch.tensor([log_error], dtype=torch.float64), q, num_classes)[0])
        assert ours <= expected
        assert ours >= expected * (1 - 1e-10) - 1


def test_kl_radius_does_not_admit_equality():
    """With 4 p (1 - p) = exp(-2 D) to within rounding, one change may bring p to 1/2."""
    log_error = kl_thresholds(torch.arange(1, 200), 0.3, 2)
    assert (kl_radius(log_error, 0.3, 2) == torch.arange(199)).all()
    assert (kl_radius(log_error - 1e-9, 0.3, 2) == torch.arange(1, 200)).all()


@pytest.mark.parametrize(("q", "num_classes"), [(0.01, 2), (0.3, 2), (0.4999, 2), (0.45, 4)])
def test_kl_radius_is_sound_to_the_last_bit(q, num_classes):
    exact = mpmath.mpf(q)
    divergence = (1 - num_classes * exact / (num_classes - 1)) * mpmath.log((1 - exact) * (num_classes - 1) / exact)
    near = kl_thresholds(torch.arange(1, 60), q, num_classes)
    for steps in range(-6, 7):
        log_errors = near * (1 + steps * 2.0**-52)
        for log_error, ours in zip(log_errors.tolist(), kl_radius(log_errors, q, num_classes).tolist(), strict=True):
            error = mpmath.exp(mpmath.mpf(log_error))
            assert ours == 0 or ours * divergence < -mpmath.log(4 * error * (1 - error)) / 2


@pytest.mark.parametrize(("q", "num_classes"), NOISES)
def test_kl_is_never_above_tight(q, num_classes):
    radii = torch.arange(1, 400)
    assert (kl_thresholds(radii, q, num_classes) < tight_thresholds(radii, q, num_classes)).all()
    errors = -torch.logspace(-1, 5, 50, dtype=torch.float64)
    kl = kl_radius(errors, q, num_classes, max_radius=500)
    assert (kl <= tight_radius(errors, q, num_classes, max_radius=500)).all()


@pytest.mark.parametrize("radius", [kl_radius, tight_radius])
@pytest.mark.parametrize(("q", "num_classes"), [(1e-8, 2), (0.4999, 2), (0.2, 5)])
def test_what_is_not_known_to_be_likelier_than_not_gets_no_radius(radius, q, num_classes):
    half = math.log(0.5)
    errors = torch.tensor([0.0, -1e-300, -0.01, -0.3, half + 1e-15, half, 5.0], dtype=torch.float64)
    assert radius(errors, q, num_classes, max_radius=50).tolist() == [0] * 7


@pytest.mark.parametrize("radius", [kl_radius, tight_radius])
def test_certain_predictions_withstand_everything(radius):
    errors = torch.tensor([-torch.inf, -1e300, -0.7], dtype=torch.float64)
    assert radius(errors, 0.2, 2, max_radius=7).tolist() == [7, 7, 0]
    assert radius(errors[:0], 0.2, 2, max_radius=7).tolist() == []
    assert radius(errors, 0.2, 3, max_radius=0).tolist() == [0, 0, 0]


def test_paper_figure_5_tight_certifies_about_twice_as_many():
    errors = torch.tensor([-20.0, -50.0, -200.0], dtype=torch.float64)
    kl, tight = kl_radius(errors, 0.3, 2), tight_radius(errors, 0.3, 2, max_radius=10_000)
    assert ((tight / kl > 1.7) & (tight / kl < 2.3)).all()


def test_the_table_falls_with_the_number_of_flips():
    for q, num_classes in NOISES:
        table = tight_thresholds(torch.arange(3000), q, num_classes)
        assert (table.diff() < 0).all()
        assert torch.isfinite(table).all()


def test_single_entries_equal_the_table():
    radii = torch.tensor([1, 17, 300, 2999])
    for q, num_classes in [(0.01, 2), (0.4, 2), (0.1, 3), (0.6, 10)]:
        table = tight_thresholds(torch.arange(3000), q, num_classes)
        assert torch.allclose(tight_thresholds(radii, q, num_classes), table[radii], rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize(("q", "num_classes"), [(0.0, 2), (0.5, 2), (1.0, 2), (-0.1, 2), (0.7, 3), (math.nan, 2)])
def test_flip_probabilities_that_make_no_sense(q, num_classes):
    with pytest.raises(UserError, match="q must lie strictly between 0 and 1 - 1/num_classes"):
        kl_radius(torch.zeros(1), q, num_classes)


def test_unknown_errors_are_refused():
    with pytest.raises(UserError, match="without NaN"):
        tight_radius(torch.tensor([math.nan]), 0.1, 2, max_radius=3)
    with pytest.raises(UserError, match="num_classes must be an integer of at least 2"):
        kl_radius(torch.zeros(1), 0.1, 1)
