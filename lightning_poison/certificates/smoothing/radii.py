r"""How many changed labels a smoothed prediction withstands, from the probability of any other prediction.

Everything is a function of ``log_error``, an upper bound on log(1 - p), where p is the probability of the predicted
class when every label is flipped with probability q to one of the other classes (uniformly). A bound of log(1/2) or
more says nothing, and the radius is 0.

**KL radius** (Rosenfeld et al., 2020, "Certified robustness to label-flipping attacks via randomized smoothing",
eqs. 8 and 10; K classes: eq. 25). r changed labels turn the law mu of the drawn labels into rho with
:math:`KL(\rho \| \mu) = r (1 - \tfrac{Kq}{K-1}) \log\tfrac{(1-q)(K-1)}{q}`. By the data-processing inequality a
prediction of mu-probability p has a rho-probability b with :math:`kl(b \| p) \le KL(\rho \| \mu)`, so that b > 1/2 as
long as this is below :math:`kl(1/2 \| p) = -\tfrac12 \log 4p(1-p)`. The paper also admits equality, where b = 1/2 is
possible; ties count against us. In float64 no result can tell ``<`` from ``<=`` by being wrong: the quotient of the two
divergences is rounded down by more than it can err, so that it is strictly below the exact one, and a whole number r
would be certified rightly. We stay with ``<``, which then gives r - 1: never too large, and safe without that slack.

**Tight radius**: the largest r with 1 - p < :math:`\varepsilon_r`, see
:mod:`lightning_poison.certificates.smoothing.thresholds`; the necessary and sufficient condition for a black-box
learner, about twice the KL radius.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_poison.certificates.smoothing.thresholds import FlipNoise, tight_thresholds
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer

__all__ = ["kl_radius", "kl_thresholds", "tight_radius"]

_EPS = torch.finfo(torch.float64).eps
_ANY = 2**53  # stands for "any number"; a float64 holds it exactly


def kl_radius(log_error: Tensor, q: float, num_classes: int, max_radius: int = _ANY) -> Tensor:
    """Certified number of changed labels by the KL divergence, in closed form.

    Args:
        log_error: shape (m,), float64: upper bounds on log(1 - p), which may be -inf.
        q: probability with which each label is flipped, in (0, 1 - 1/K).
        num_classes: K.
        max_radius: the number of labels; no radius is larger.

    Returns:
        shape (m,), int64.

    Raises:
        UserError: q is out of its range, or ``log_error`` holds NaN.

    Example:
        >>> kl_radius(torch.tensor([-50.0, -5.0, -0.1], dtype=torch.float64), q=0.1, num_classes=2)
        tensor([13,  1,  0])
    """
    noise, error = FlipNoise(q, num_classes), _checked(log_error, max_radius)
    bounded = error.clamp(min=-float(_ANY), max=math.log(0.5))  # p <= 1/2 reaches nowhere
    reach = -(math.log(4) + bounded + torch.log1p(-bounded.exp())) / 2 - 4 * _EPS * (2 - bounded)
    # Strictly below the quotient; its rounding and that of the divergence are taken off, so that the exact one is
    # larger than this one: where this one is a whole number, one change is lost that rounding down would still certify.
    quotient = reach / (_divergence(noise) * (1 + 32 * _EPS))
    radius = (quotient.clamp(max=float(_ANY)).ceil() - 1).clamp(min=0, max=max_radius).long()
    return torch.where(torch.isinf(error), max_radius, radius)


def tight_radius(log_error: Tensor, q: float, num_classes: int, max_radius: int) -> Tensor:
    """Certified number of changed labels by the Neyman-Pearson lemma: the best for a black-box learner.

    Args:
        log_error: shape (m,), float64: upper bounds on log(1 - p), which may be -inf.
        q: probability with which each label is flipped, in (0, 1 - 1/K).
        num_classes: K.
        max_radius: the number of labels; no radius is larger.

    Returns:
        shape (m,), int64; never below :func:`kl_radius`.

    Raises:
        UserError: q is out of its range, or ``log_error`` holds NaN.

    Example:
        >>> tight_radius(torch.tensor([-50.0, -5.0, -0.1], dtype=torch.float64), 0.1, num_classes=2, max_radius=100)
        tensor([26,  1,  0])
    """
    FlipNoise(q, num_classes)
    error = _checked(log_error, max_radius)
    finite = error[torch.isfinite(error)]
    last = _first_unreached(float(finite.min()), q, num_classes, max_radius) if len(finite) else 0
    table = tight_thresholds(torch.arange(last + 1), q, num_classes)
    # What r changes cannot do, fewer cannot either: a larger threshold further on holds for the smaller r as well.
    table = table.flip(0).cummax(0).values
    passed = last + 1 - torch.searchsorted(table, error, right=True)
    radius = torch.where(torch.isinf(error), max_radius, (passed - 1).clamp(min=0))
    return torch.maximum(radius, kl_radius(log_error, q, num_classes, max_radius))


def kl_thresholds(radii: Tensor, q: float, num_classes: int) -> Tensor:
    r"""Log of the error probability below which the KL bound certifies r changed labels (figure 5 of the paper).

    The solution of :math:`-\tfrac12 \log 4 e (1 - e) = r D` for e < 1/2, D the divergence of one changed label. Not
    rounded down: for pictures; :func:`kl_radius` certifies.

    Args:
        radii: shape (R,), integers r >= 0.
        q: probability with which each label is flipped.
        num_classes: K.

    Returns:
        shape (R,), float64.

    Example:
        >>> kl_thresholds(torch.tensor([0, 1]), q=0.25, num_classes=2).exp()
        tensor([0.5000, 0.0918], dtype=torch.float64)
    """
    exponent = -2 * radii.double() * _divergence(FlipNoise(q, num_classes))
    return exponent - math.log(2) - torch.log1p((-torch.expm1(exponent)).sqrt())


def _divergence(noise: FlipNoise) -> float:
    """KL(rho || mu) of one changed label, within a few units of rounding."""
    return noise.margin * noise.log_ratio


def _checked(log_error: Tensor, max_radius: int) -> Tensor:
    max_radius = check_integer("max_radius", max_radius, minimum=0)
    if log_error.ndim != 1 or torch.isnan(log_error).any():
        raise UserError(
            f"log_error must be a vector without NaN, got shape {tuple(log_error.shape)}; it holds log(1 - p)"
        )
    return log_error.double().clamp(max=0)


def _first_unreached(log_error: float, q: float, num_classes: int, max_radius: int) -> int:
    """A radius from which on nothing is certified at ``log_error``, or the largest."""
    radius = 1
    while radius < max_radius and float(tight_thresholds(torch.tensor([radius]), q, num_classes)[0]) > log_error:
        radius *= 2
    return min(radius, max_radius)
