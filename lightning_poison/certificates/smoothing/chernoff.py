r"""Chernoff's bound on the probability that a smoothed margin has the wrong sign.

For every t >= 0, :math:`P(D \le 0) \le E e^{-tD} = e^{L(t)}`, and for every t <= 0, :math:`P(D \ge 0) \le e^{L(t)}`
(Rosenfeld et al., 2020, eqs. 7, 13, 22 and 24). L is convex with L(0) = 0 and L'(0) = -E D, so the best t has the sign
of the expected margin, which is the predicted one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_poison.certificates.smoothing.dense import Margins
from lightning_poison.certificates.smoothing.newton import coarse_tilt, refined_tilt

__all__ = ["bounded_at_best_tilt", "chernoff"]


Sharpen = Callable[[Margins, Tensor, Tensor], Tensor]
"""From margins, their t and their predicted signs to bounds on log probabilities."""


def chernoff(margins: Margins, sign: Tensor) -> Tensor:
    """Bound the probability that each margin does not have its predicted sign (a margin of 0 has none).

    Args:
        margins: of m points.
        sign: shape (m,), +1 or -1: the predicted sign.

    Returns:
        an upper bound on the logarithm of the probability, shape (m,), float64, at most 0.
    """
    return bounded_at_best_tilt(margins, sign, lambda part, tilt, _: part.log_mgf(tilt))


def bounded_at_best_tilt(margins: Margins, sign: Tensor, bound: Sharpen) -> Tensor:
    """A bound at the best t of the predicted sign, at most log 1.

    Where rounding decides about a margin that is expected to be next to nothing the best t may have the other sign; t =
    0 then, where L = 0 bounds any probability. What is not a number bounds nothing.
    """
    first = coarse_tilt(margins)
    bounds = torch.zeros_like(first)
    for rows, part in margins.blocks():
        tilt = sign[rows] * (sign[rows] * refined_tilt(part, first[rows])).clamp(min=0)
        bounds[rows] = bound(part, tilt, sign[rows])
    return torch.nan_to_num(bounds, nan=0.0, neginf=-torch.inf).clamp(max=0.0)
