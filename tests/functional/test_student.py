from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lightning_poison.errors import UserError
from lightning_poison.functional.intervals import mean_interval


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_interval_is_that_of_the_t_test(confidence: float) -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        first, second = random.normal(size=(2, 2 + seed))
        interval = mean_interval(list(first - second), confidence)
        peer = stats.ttest_rel(first, second).confidence_interval(confidence)
        assert interval.n == 2 + seed
        assert interval.low == pytest.approx(peer.low)
        assert interval.high == pytest.approx(peer.high)
        assert interval.error == pytest.approx(stats.sem(first - second))


def test_it_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    intervals = [mean_interval(list(random.normal(3.0, 2.0, size=4)), 0.8) for _ in range(4000)]
    covered = sum(interval.low <= 3.0 <= interval.high for interval in intervals) / len(intervals)
    assert abs(covered - 0.8) < 4 * math.sqrt(0.8 * 0.2 / len(intervals))


def test_too_few_values_have_no_interval() -> None:
    assert mean_interval([]).n == 0
    assert math.isnan(mean_interval([]).mean)
    one = mean_interval([0.25])
    assert (one.n, one.mean) == (1, 0.25)
    assert all(math.isnan(value) for value in (one.error, one.low, one.high))


@pytest.mark.parametrize(("values", "confidence"), [([1.0, math.nan], 0.95), ([1.0, 2.0], 1.0), ([1.0, 2.0], 0.0)])
def test_refused(values: list[float], confidence: float) -> None:
    with pytest.raises(UserError):
        mean_interval(values, confidence)
