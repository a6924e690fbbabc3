r"""Bounds on the tail of a smoothed margin: Chernoff's, at its best tilt, sharpened by Berry and Esseen's theorem.

**Chernoff.** For every t >= 0, :math:`P(D \le 0) \le E e^{-tD} = e^{L(t)}`, and for every t <= 0, :math:`P(D \ge 0) \le
e^{L(t)}` (Rosenfeld et al., 2020, eqs. 7, 13, 22 and 24). L is convex with L(0) = 0 and L'(0) = -E D, so the best t has
the sign of the expected margin, which is the predicted one.

**The best tilt** is found by a damped Newton method on many points at once. It minimises the convex :math:`L(t) = \log
E e^{-tD}`, with derivatives :math:`L_1, L_2, L_3`. Its curvature changes by factors along the way: a term of D moves
within :math:`2 |\beta_i|`, so :math:`|L_3| \le 2 \max_i |\beta_i| L_2` (such functions: Bach, 2010, "Self-concordant
analysis for logistic regression", section 2). So a step s goes to the zero of the model :math:`L_1 + L_2 (e^{cs} - 1) /
c`, with :math:`c = L_3 / L_2` where the curvature grows along s, and 0, Newton's own step, where it falls: :math:`|s| =
\log(1 + |c L_1| / L_2) / |c|`. No line search.

Every t gives a valid bound, so the minimum need not be exact: a tilt that is off by dt costs :math:`L_2 dt^2 / 2` nats.
The first steps look at a sample of the training points, the last ones at all of them.

**Sharpening** by a central limit theorem with an explicit constant.

**Theorem.** Let t > 0, and let Q be the law of the labels tilted by :math:`e^{-tD - L(t)}`. Under Q the terms of D stay
independent; let D have mean m, variance V and sum of third absolute central moments T. With :math:`s = t \sqrt V`,
:math:`a = m / \sqrt V` and :math:`\Delta = 0.5600 \, T V^{-3/2}`,

.. math:: P(D \le 0) \le e^{L(t)} \min\left(1,\; 2 \Delta
          + \tfrac12 e^{-a^2/2} \operatorname{erfcx}\tfrac{a + s}{\sqrt 2}\right) .

For t < 0 the same holds for :math:`P(D \ge 0)` with |t| and -m.

**Proof.** :math:`P(D \le 0) = e^{L(t)} E_Q[e^{tD} 1_{D \le 0}]`, and :math:`E_Q[e^{tD} 1_{D \le 0}] =
\int_{-\infty}^0 t e^{tz} Q(z \le D \le 0) dz` lies in [0, 1]. By the Berry-Esseen inequality for independent summands,
:math:`|Q((D - m) / \sqrt V \le x) - \Phi(x)| \le \Delta` for every x (constant 0.5600: Shevtsova, 2010, "An improvement
of convergence rate estimates in the Lyapunov theorem", Doklady Mathematics 82; also 0.5591: Tyurin, 2010). So
:math:`Q(z \le D \le 0)` is at most :math:`2 \Delta` more than for a normal variable G of the same mean and variance,
and :math:`E[e^{tG} 1_{G \le 0}] = \tfrac12 e^{-a^2/2} \operatorname{erfcx}((a + s)/\sqrt 2)`. QED.

**Rounding.** V is bounded from below and T from above; :math:`e^{-a^2/2}` and erfcx, which is monotone, are taken at
arguments moved to the unfavourable side, also by what V may be more; the result is raised by far more than SciPy's
erfcx and the rest can err.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.special import erfcx
from torch import Tensor

from lightning_poison.certificates.smoothing.dense import Margins
from lightning_poison.certificates.smoothing.margins import LARGEST_EXPONENT, Moments

__all__ = ["berry_esseen", "berry_esseen_at", "bounded_at_best_tilt", "chernoff", "coarse_tilt", "log_normal_factor"]

_CONSTANT = 0.5600
_ROUNDING = 1e-9
_STEPS = 15
_SAMPLE = 1000
_COARSE_TOLERANCE, _TOLERANCE = 0.2, 0.05  # nats
_RELATIVE_TOLERANCE = 5e-5  # of what is gained, about |L|
_TINY, _LARGEST_TILT = 1e-300, 1e30


# --- bounds -----------------------------------------------------------------------------------------------------------


def chernoff(margins: Margins, sign: Tensor) -> Tensor:
    """Bound the probability that each margin does not have its predicted sign (a margin of 0 has none).

    Args:
        margins: of m points.
        sign: shape (m,), +1 or -1: the predicted sign.

    Returns:
        an upper bound on the logarithm of the probability, shape (m,), float64, at most 0.
    """
    return bounded_at_best_tilt(margins, sign, lambda part, tilt, _: part.log_mgf(tilt))


def berry_esseen(margins: Margins, sign: Tensor) -> Tensor:
    """Bound the probability that each margin does not have its predicted sign; never above Chernoff's bound.

    Args:
        margins: of m points.
        sign: shape (m,), +1 or -1: the predicted sign.

    Returns:
        an upper bound on the logarithm of the probability, shape (m,), float64, at most 0.
    """
    return bounded_at_best_tilt(margins, sign, berry_esseen_at)


def berry_esseen_at(margins: Margins, tilt: Tensor, sign: Tensor) -> Tensor:
    """The bound at a given t of the predicted sign, shape (m,)."""
    moments = margins.moments(tilt)
    return moments.log_mgf + log_normal_factor(moments, tilt, sign)


def log_normal_factor(moments: Moments, tilt: Tensor, sign: Tensor) -> Tensor:
    """What the central limit theorem takes off L(t): the logarithm of the minimum above, at most 0.

    Args:
        moments: at ``tilt``.
        tilt: t, shape (m,); its sign is ``sign`` or 0.
        sign: shape (m,), +1 or -1.
    """
    deviation = moments.variance.clamp(min=1e-300).sqrt()
    distance = _CONSTANT * moments.third / deviation**3
    mean, moved = sign * moments.mean / deviation, moments.mean_error / deviation
    moved = moved + mean.abs() * _ROUNDING  # the variance may be more than its lower bound
    nearest = (mean.abs() - moved).clamp(min=0)
    argument = (mean - moved + tilt.abs() * deviation * (1 - _ROUNDING)) / math.sqrt(2)
    normal = torch.from_numpy(erfcx(argument.cpu().numpy())).to(argument) / 2 * (-nearest.square() / 2).exp()
    factor = (2 * distance + normal) * (1 + _ROUNDING) + _ROUNDING * 1e-3
    return torch.nan_to_num(factor.log(), nan=0.0).clamp(max=0.0)


_Sharpen = Callable[[Margins, Tensor, Tensor], Tensor]
"""From margins, their t and their predicted signs to bounds on log probabilities."""


def bounded_at_best_tilt(margins: Margins, sign: Tensor, bound: _Sharpen) -> Tensor:
    """A bound at the best t of the predicted sign, at most log 1.

    Where rounding decides about a margin that is expected to be next to nothing the best t may have the other sign; t =
    0 then, where L = 0 bounds any probability. What is not a number bounds nothing.
    """
    first = coarse_tilt(margins)
    bounds = torch.zeros_like(first)
    for rows, part in margins.blocks():
        tilt = sign[rows] * (sign[rows] * _refined_tilt(part, first[rows])).clamp(min=0)
        bounds[rows] = bound(part, tilt, sign[rows])
    return torch.nan_to_num(bounds, nan=0.0, neginf=-torch.inf).clamp(max=0.0)


# --- the best tilt ----------------------------------------------------------------------------------------------------


def coarse_tilt(margins: Margins) -> Tensor:
    """A first guess of the t that minimises L, from a sample of the training points.

    Args:
        margins: of m points.

    Returns:
        shape (m,), float64; negative where the expected margin is.
    """
    return _iterated(margins, torch.zeros_like(margins.largest()), _SAMPLE, _COARSE_TOLERANCE)


def _refined_tilt(margins: Margins, tilt: Tensor) -> Tensor:
    """Nearly minimise L over the t of either sign with :math:`|t beta_i|` within :data:`LARGEST_EXPONENT`.

    Args:
        margins: of m points.
        tilt: shape (m,), float64: where to start.
    """
    return _iterated(margins, tilt, None, _TOLERANCE)


def _iterated(margins: Margins, tilt: Tensor, sample: int | None, tolerance: float) -> Tensor:
    limit = (LARGEST_EXPONENT / margins.largest()).clamp(max=_LARGEST_TILT)
    for _ in range(_STEPS):
        step, left, worth = _step(margins.slopes(tilt, sample), tilt)
        following = torch.minimum(torch.maximum(tilt + step, -limit), limit)
        left = torch.where(following == tilt, 0.0, left - _RELATIVE_TOLERANCE * worth)
        tilt = following
        if len(left) == 0 or float(left.max()) < tolerance:
            break
    return tilt


def _step(slopes: Tensor, tilt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The step, about how many nats are left to gain after it, and about how many t has gained.

    Newton's step gains L2 s^2 / 2 and leaves a slope of L2 c s^2 / 2, which is worth a share (c s / 2)^2 of the gain.
    """
    slope, curvature, third = slopes
    newton = -slope / curvature.clamp(min=_TINY)
    change = third / curvature.clamp(min=_TINY)
    growth = (change * newton.sign()).clamp(min=0)
    model = newton.sign() * torch.log1p(growth * newton.abs()) / growth.clamp(min=_TINY)
    step = torch.where(growth * newton.abs() < 1e-8, newton, model)
    left = (slope * step).abs() / 2 * (change * step / 2).square().clamp(max=1)
    return step, left, curvature * tilt.square() / 2
