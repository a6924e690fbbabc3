"""The mean of a few measurements with Student's interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lightning_poison.errors import UserError

__all__ = ["MeanInterval", "mean_interval"]


@dataclass(frozen=True)
class MeanInterval:
    """A mean and how well it is known; NaN where there are too few values.

    Args:
        n: number of values.
        mean: their mean; NaN for none.
        error: standard error of the mean, the standard deviation (over n - 1) divided by the root of n.
        low: lower end of the interval.
        high: upper end.
    """

    n: int
    mean: float
    error: float
    low: float
    high: float


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> MeanInterval:
    r"""Student's interval :math:`\bar x \pm t_{n-1, (1 + c)/2}\, s / \sqrt n` (Student, 1908).

    It covers the expectation with probability ``confidence`` where the values are independent and normal.

    Args:
        values: n finite numbers.
        confidence: c, strictly between 0 and 1.

    Raises:
        UserError: a value is not finite, or the confidence is out of range.

    Example:
        >>> interval = mean_interval([1.0, 2.0, 3.0])
        >>> interval.mean, round(interval.error, 4), round(interval.low, 3), round(interval.high, 3)
        (2.0, 0.5774, -0.484, 4.484)
    """
    if not 0 < confidence < 1:
        raise UserError(f"confidence must lie strictly between 0 and 1, got {confidence!r}; 0.95 is usual")
    numbers = np.asarray(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise UserError(f"values must be finite, got {list(values)}; leave out what was not measured")
    n = len(numbers)
    mean = float(numbers.mean()) if n else math.nan
    if n < 2:
        return MeanInterval(n, mean, math.nan, math.nan, math.nan)
    error = float(numbers.std(ddof=1)) / math.sqrt(n)
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    return MeanInterval(n, mean, error, mean - reach, mean + reach)
