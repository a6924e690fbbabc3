r"""The sums over training points from which the tails of a smoothed margin are bounded, and the noise behind them.

**Sums.** The smoothed margin of a point is :math:`D = b + \sum_i \beta_i Z_i` with independent noise :math:`Z_i`. What
bounds its tails are sums over training points of functions of t: :math:`L(t) = \log E e^{-t D}`, its slopes, and
moments of D under the law tilted by :math:`e^{-tD - L(t)}`.
:class:`~lightning_poison.certificates.smoothing.dense.Margins` computes them from a matrix of weights.

**Noise:** what smoothing does to one label's term of a margin. Smoothing keeps each training label with probability 1 -
q, and replaces it by each of the K - 1 others with probability e = q / (K - 1). The margin of class c over a rival j is
:math:`s_c - s_j = \sum_i \alpha_i (1[y_i = c] - 1[y_i = j])`, so label i adds :math:`\alpha_i Z_i` if it was c,
:math:`-\alpha_i Z_i` if it was j, with the same Z, and :math:`\alpha_i Z'_i` if it was neither (Rosenfeld et al., 2020,
eq. 23):

======  ==========  ==============
value   of Z        of Z'
======  ==========  ==============
+1      1 - q       e
0       q - e       1 - 2 e
-1      e           e
======  ==========  ==============

With two classes Z is a sign, -1 with probability q.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["EPS", "LARGEST_EXPONENT", "LabelNoise", "Moments", "Segment", "noise_of_others", "noise_of_own"]

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


# --- the noise of one label -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelNoise:
    """Probabilities of the values +1, 0 and -1.

    Example:
        >>> noise_of_own(0.25, 2), noise_of_others(0.5, 5).zero
        (LabelNoise(plus=0.75, zero=0.0, minus=0.25), 0.75)
    """

    plus: float
    zero: float
    minus: float

    @property
    def is_sign(self) -> bool:
        """Whether 0 is not among the values."""
        return self.zero == 0

    @property
    def spread(self) -> float:
        """Largest absolute logarithm of a probability that is not zero."""
        return max(-math.log(p) for p in (self.plus, self.zero, self.minus) if p > 0)


def noise_of_own(q: float, num_classes: int) -> LabelNoise:
    """The noise Z of labels that are one of the two classes of a margin."""
    other = q / (num_classes - 1)
    return LabelNoise(1 - q, (num_classes - 2) * other, other)


def noise_of_others(q: float, num_classes: int) -> LabelNoise:
    """The noise Z' of labels that are neither class."""
    other = q / (num_classes - 1)
    return LabelNoise(other, 1 - 2 * other, other)
