r"""Robust and non-robust features (Tsipras et al., 2019): accuracy and robustness can be at odds.

The label y is -1 or +1 with equal probability, and the features are :math:`x_i = a_i y + Z_i` with independent standard
normal :math:`Z_i`: one strong feature, :math:`a_1 = 1`, and D - 1 weak ones, :math:`a_i = \sqrt{\log D / (D - 1)}`.

For the linear classifier :math:`\operatorname{sign}(w \cdot x)` and an adversary who changes each feature by at most
eps, the worst change lowers :math:`y\, w \cdot x` by :math:`\epsilon \|w\|_1`, and what is left is normal with mean
:math:`w \cdot a - \epsilon \|w\|_1` and standard deviation :math:`\|w\|_2`. Hence the risk is

.. math:: Q\left(\frac{w \cdot a - \epsilon \|w\|_1}{\|w\|_2}\right), \quad Q(t) = P[Z > t].

It is least at w = a for eps = 0 (Bayes; :math:`Q(\sqrt{1 + \log D})`), and at :math:`w_i = \max(a_i - \epsilon, 0)` for
any eps < 1: by the Cauchy-Schwarz inequality, as a sign other than that of a_i can only hurt.
"""

from __future__ import annotations

import math

import torch
from scipy.special import ndtr
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, check_number
from lightning_poison.functional.scale import unit_of

__all__ = ["feature_strengths", "linear_risk", "robust_weights"]


def feature_strengths(dim: int) -> Tensor:
    """The strengths a of the lecture's model: shape (dim,), float64, one strong feature and dim - 1 weak ones.

    Raises:
        UserError: dim is less than 2.

    Example:
        >>> feature_strengths(3)
        tensor([1.0000, 0.7412, 0.7412], dtype=torch.float64)
    """
    dim = check_integer("dim", dim, minimum=2)
    strengths = torch.full((dim,), math.sqrt(math.log(dim) / (dim - 1)), dtype=torch.float64)
    strengths[0] = 1.0
    return strengths


def linear_risk(strengths: Tensor, weights: Tensor, eps: float = 0.0) -> float:
    """Risk of a linear classifier when each feature may be changed by at most ``eps``.

    Args:
        strengths: shape (D,): a.
        weights: shape (D,): w, not all 0.
        eps: l-infinity size of the change; 0 gives the standard risk.

    Raises:
        UserError: eps is negative, numbers are not finite, or all weights are 0.

    Example:
        >>> strengths = feature_strengths(10_000)
        >>> eps = 2 * float(strengths[1])
        >>> [round(linear_risk(strengths, strengths, size), 4) for size in (0.0, eps)]
        [0.0007, 0.9952]
        >>> [round(linear_risk(strengths, torch.eye(10_000)[0], size), 4) for size in (0.0, eps)]
        [0.1587, 0.1738]
    """
    eps = check_number("eps", eps, minimum=0)
    a, w = check_finite("strengths", strengths).double(), check_finite("weights", weights).double()
    w = w * unit_of(w)  # the sign of the classifier has no scale
    size = float(torch.linalg.vector_norm(w))
    if not size > 0:
        raise UserError("weights must not all be 0, got a classifier without a sign; give one a positive weight")
    return float(ndtr(-(float(w @ a) - eps * float(w.abs().sum())) / size))


def robust_weights(strengths: Tensor, eps: float) -> Tensor:
    """The linear classifier of the least risk under changes of at most ``eps`` a feature.

    Args:
        strengths: shape (D,): a.
        eps: less than the largest strength, in absolute value.

    Returns:
        shape (D,), float64.

    Raises:
        UserError: eps is so large that no feature is left, or strengths are not finite.

    Example:
        >>> robust_weights(torch.tensor([1.0, 0.1]), eps=0.25)
        tensor([0.7500, 0.0000], dtype=torch.float64)
    """
    a = check_finite("strengths", strengths).double()
    if not check_number("eps", eps, minimum=0) < float(a.abs().max()):
        raise UserError(f"eps must be less than the largest strength {float(a.abs().max()):g}, got {eps:g}")
    return a.sign() * (a.abs() - eps).clamp(min=0)
