r"""The sums over training points from which the tails of a smoothed margin are bounded.

The smoothed margin of a point is :math:`D = b + \sum_i \beta_i Z_i` with independent noise :math:`Z_i` of
:mod:`lightning_poison.certificates.smoothing.noise`. What bounds its tails are sums over training points of functions
of t: :math:`L(t) = \log E e^{-t D}`, its slopes, and moments of D under the law tilted by :math:`e^{-tD - L(t)}`.
:class:`~lightning_poison.certificates.smoothing.dense.Margins` computes them from a matrix of weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.certificates.smoothing.noise import LabelNoise

__all__ = ["EPS", "LARGEST_EXPONENT", "Moments", "Segment"]

EPS = torch.finfo(torch.float64).eps
LARGEST_EXPONENT = 300.0
"""Limit of |t beta_i|: exp(2 t beta_i) and its inverse stay ordinary float64 numbers."""


@dataclass(frozen=True)
class Segment:
    """Training points ``start`` to ``stop`` enter a margin as ``sign`` times their weight times ``noise``."""

    start: int
    stop: int
    sign: int
    noise: LabelNoise


@dataclass(frozen=True)
class Moments:
    """L(t), and moments of D under the tilted law, each with its rounding on the safe side.

    Args:
        log_mgf: shape (m,), float64: at least L(t).
        mean: shape (m,): of D.
        mean_error: shape (m,): how far rounding may have moved the mean.
        variance: shape (m,): at most that of D.
        third: shape (m,): at least the sum of the terms' third absolute central moments.
    """

    log_mgf: Tensor
    mean: Tensor
    mean_error: Tensor
    variance: Tensor
    third: Tensor
