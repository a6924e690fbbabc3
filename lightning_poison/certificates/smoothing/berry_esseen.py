r"""Chernoff's bound sharpened by a central limit theorem with an explicit constant.

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
arguments moved to the unfavourable side; the result is raised by far more than SciPy's erfcx and the rest can err.
"""

from __future__ import annotations

import math

import torch
from scipy.special import erfcx
from torch import Tensor

from lightning_poison.certificates.smoothing.chernoff import bounded_at_best_tilt
from lightning_poison.certificates.smoothing.dense import Margins
from lightning_poison.certificates.smoothing.margins import Moments

__all__ = ["CONSTANT", "berry_esseen", "berry_esseen_at", "log_normal_factor"]

CONSTANT = 0.5600
_ROUNDING = 1e-9


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
    distance = CONSTANT * moments.third / deviation**3
    mean, moved = sign * moments.mean / deviation, moments.mean_error / deviation
    nearest = (mean.abs() - moved).clamp(min=0)
    argument = (mean - moved + tilt.abs() * deviation * (1 - _ROUNDING)) / math.sqrt(2)
    normal = torch.from_numpy(erfcx(argument.cpu().numpy())).to(argument) / 2 * (-nearest.square() / 2).exp()
    factor = (2 * distance + normal) * (1 + _ROUNDING) + _ROUNDING * 1e-3
    return torch.nan_to_num(factor.log(), nan=0.0).clamp(max=0.0)
