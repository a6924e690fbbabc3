r"""The tilt t that makes a Chernoff bound smallest, by a damped Newton method on many points at once.

Minimise the convex :math:`L(t) = \log E e^{-tD}`, with derivatives :math:`L_1, L_2, L_3`. Its curvature changes by
factors along the way: a term of D moves within :math:`2 |\beta_i|`, so :math:`|L_3| \le 2 \max_i |\beta_i| L_2` (such
functions: Bach, 2010, "Self-concordant analysis for logistic regression", section 2). So a step s goes to the zero of
the model :math:`L_1 + L_2 (e^{cs} - 1) / c`, with :math:`c = L_3 / L_2` where the curvature grows along s, and 0,
Newton's own step, where it falls: :math:`|s| = \log(1 + |c L_1| / L_2) / |c|`. No line search.

Every t gives a valid bound, so the minimum need not be exact: a tilt that is off by dt costs :math:`L_2 dt^2 / 2` nats.
The first steps look at a sample of the training points, the last ones at all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_poison.certificates.smoothing.dense import Margins
from lightning_poison.certificates.smoothing.margins import LARGEST_EXPONENT

__all__ = ["coarse_tilt", "refined_tilt"]

_STEPS = 15
_SAMPLE = 1000
_COARSE_TOLERANCE, _TOLERANCE = 0.2, 0.05  # nats
_RELATIVE_TOLERANCE = 5e-5  # of what is gained, about |L|
_TINY, _LARGEST_TILT = 1e-300, 1e30


def coarse_tilt(margins: Margins) -> Tensor:
    """A first guess of the t that minimises L, from a sample of the training points.

    Args:
        margins: of m points.

    Returns:
        shape (m,), float64; negative where the expected margin is.
    """
    return _iterated(margins, torch.zeros_like(margins.largest()), _SAMPLE, _COARSE_TOLERANCE)


def refined_tilt(margins: Margins, tilt: Tensor) -> Tensor:
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
