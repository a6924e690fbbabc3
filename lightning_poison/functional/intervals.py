r"""Bounds from few numbers: Clopper and Pearson's on a probability, Student's on a mean.

**A probability.** k of n independent trials came up. The upper bound u solves
:math:`P[\mathrm{Bin}(n, u) \le k] = \alpha`, the lower bound l solves :math:`P[\mathrm{Bin}(n, l) \ge k] = \alpha`;
each holds with probability at least 1 - alpha, whatever the probability is. Small probabilities are computed as such: a
bound on a rare error never goes through 1 - p.

**Rounding.** SciPy inverts the incomplete beta function, which is the binomial tail. Here the bound is moved outwards
until the tail, as SciPy computes it, is smaller than alpha by more than that function's error (a relative 1e-12 for up
to 10^6 trials; a thousand times as much is taken off). Where no trial or every trial came up, there is a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special, stats
from torch import Tensor

from lightning_poison.errors import UserError

__all__ = ["MeanInterval", "binomial_lower", "binomial_upper", "log_binomial_upper", "mean_interval"]

_TAIL_MARGIN = 1e-9
_FIRST_STEP = 1e-12
_Array = NDArray[np.float64]


# --- a probability ----------------------------------------------------------------------------------------------------


def binomial_upper(counts: Tensor, trials: int | Tensor, alpha: float) -> Tensor:
    """Upper confidence bound on a probability.

    Args:
        counts: integers k >= 0, any shape.
        trials: number of trials n >= 1 with k <= n; one for all or one for each.
        alpha: probability, in (0, 1), that a bound is too small.

    Returns:
        float64 in (0, 1], shaped like ``counts``.

    Raises:
        UserError: counts, trials or alpha are out of their range.

    Example:
        >>> binomial_upper(torch.tensor([0, 5, 10]), 10, alpha=0.05)
        tensor([0.2589, 0.7776, 1.0000], dtype=torch.float64)
    """
    k, n = _checked(counts, trials, alpha)
    with np.errstate(all="ignore"):
        none = -np.expm1(np.log(alpha) / n) * (1 + 1e-14)
        some = _outwards(special.betainccinv(k + 1, n - k, alpha), lambda p: special.betaincc(k + 1, n - k, p), alpha)
    bound = np.select([k == n, k == 0], [np.ones_like(n), none], some)
    return torch.as_tensor(np.minimum(bound, 1.0))


def log_binomial_upper(counts: Tensor, trials: int | Tensor, alpha: float) -> Tensor:
    """Logarithm of :func:`binomial_upper`, rounded upwards: what the radii of smoothed predictions are made of.

    Example:
        >>> log_binomial_upper(torch.tensor([0]), 1000, alpha=0.001)
        tensor([-4.9786], dtype=torch.float64)
    """
    log = binomial_upper(counts, trials, alpha).log()
    return (log + 4 * torch.finfo(torch.float64).eps * log.abs()).clamp(max=0)


def binomial_lower(counts: Tensor, trials: int | Tensor, alpha: float) -> Tensor:
    """Lower confidence bound on a probability.

    Args:
        counts: integers k >= 0, any shape.
        trials: number of trials n >= 1 with k <= n; one for all or one for each.
        alpha: probability, in (0, 1), that a bound is too large.

    Returns:
        float64 in [0, 1), shaped like ``counts``.

    Raises:
        UserError: counts, trials or alpha are out of their range.

    Example:
        >>> binomial_lower(torch.tensor([0, 5, 10]), 10, alpha=0.05)
        tensor([0.0000, 0.2224, 0.7411], dtype=torch.float64)
    """
    k, n = _checked(counts, trials, alpha)
    with np.errstate(all="ignore"):
        every = np.exp(np.log(alpha) / n) * (1 - 1e-14)
        some = _outwards(special.betaincinv(k, n - k + 1, alpha), lambda p: special.betainc(k, n - k + 1, p), alpha, -1)
    return torch.as_tensor(np.select([k == 0, k == n], [np.zeros_like(n), every], some))


def _outwards(bound: _Array, tail: Callable[[_Array], _Array], alpha: float, sign: int = 1) -> _Array:
    """Move a bound away from the estimate until its tail is safely below alpha, at last to 1 or 0.

    SciPy gives NaN for some alpha far below 1e-100; what is not a number bounds nothing.
    """
    trivial, step = (1.0 if sign > 0 else 0.0), _FIRST_STEP
    bound = np.where(np.isnan(bound), trivial, bound)
    while (short := ~(tail(bound) <= alpha * (1 - _TAIL_MARGIN)) & (bound != trivial)).any():
        moved = np.minimum(bound * (1 + sign * step), 1.0) if step < 1 else trivial
        bound = np.where(short, moved, bound)
        step *= 2
    return bound


def _checked(counts: Tensor, trials: int | Tensor, alpha: float) -> tuple[_Array, _Array]:
    if not isinstance(alpha, float) or not 0 < alpha < 1:
        raise UserError(f"alpha must lie strictly between 0 and 1, got {alpha!r}; it is the share of wrong bounds")
    k = counts.cpu()
    n = torch.as_tensor(trials).cpu().expand(k.shape)
    if k.is_floating_point() or n.is_floating_point() or (n < 1).any() or (k < 0).any() or (k > n).any():
        raise UserError("counts must be integers in [0, trials], trials at least 1; count what came up in the trials")
    return k.double().numpy(), n.double().numpy()


# --- a mean -----------------------------------------------------------------------------------------------------------


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
