"""Theorems 1 and 2 with masses estimated from data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lightning_poison.certificates.theorems.covering import BallCovering
from lightning_poison.certificates.theorems.memorisation import attack_radius
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer, check_number
from lightning_poison.functional.intervals import binomial_lower

__all__ = ["MemorisedRisk", "memorised_risk"]


@dataclass(frozen=True)
class MemorisedRisk:
    """A lower bound on the adversarial risk of every classifier that learns its noisy training labels.

    Args:
        risk: at least this share of points can be changed into an error; 0 where the bound says nothing.
        attack_radius: size of the changes, in the norm of the balls.
        num_balls: how many balls the bound uses.
        failure: probability, over the training set, that some of them holds no mislabelled training point.
        alpha: probability, over the held-out points, that a mass was overestimated.
    """

    risk: float
    attack_radius: float
    num_balls: int
    failure: float
    alpha: float


def memorised_risk(
    covering: BallCovering,
    num_samples: int,
    noise: float,
    delta: float = 0.05,
    alpha: float = 0.05,
    margin: float = 0.0,
    lipschitz: float = math.inf,
) -> MemorisedRisk:
    r"""The largest lower bound that the first k balls of a covering give, over k.

    As in theorem 1, but with the mass m_s of each ball instead of the smallest: all of the first k balls hold a
    mislabelled training point with probability at least :math:`1 - \sum_{s \le k} (1 - \eta m_s)^n`. Every m_s and the
    mass of each union are replaced by lower confidence bounds, all valid at once with probability 1 - alpha.

    Args:
        covering: from :func:`cover_by_balls`.
        num_samples: n, number of training points.
        noise: eta, the probability of a *wrong* label, in (0, 1].
        delta: allowed probability that the training set misses a ball.
        alpha: allowed probability that an estimate is wrong.
        margin: chi of theorem 2.
        lipschitz: kappa of theorem 2; infinite: theorem 1.

    Raises:
        UserError: an argument is out of its range.

    Example:
        >>> from lightning_poison.certificates.theorems import cover_by_balls
        >>> points = torch.tensor([[0.0], [1.0]]).repeat(500, 1)
        >>> covering = cover_by_balls(points, points[:, 0].long(), rho=0.1)
        >>> bound = memorised_risk(covering, num_samples=200, noise=0.1)
        >>> round(bound.risk, 2), bound.attack_radius, bound.num_balls
        (0.99, 0.2, 2)
    """
    num_samples = check_integer("num_samples", num_samples, minimum=1)
    if check_number("noise", noise, minimum=0, maximum=1) == 0:
        raise UserError("noise must be positive, got 0; without wrong labels nothing wrong is memorised")
    delta = check_number("delta", delta, minimum=0, maximum=1)
    alpha = check_number("alpha", alpha, minimum=0, maximum=1)
    level = alpha / (2 * len(covering.centres))
    masses = binomial_lower(covering.in_ball, covering.held_out, level)
    unions = binomial_lower(covering.in_union, covering.held_out, level)
    missed = torch.exp(num_samples * torch.log1p(-noise * masses)).cumsum(0) * (1 + 1e-9)
    usable = torch.where(missed <= delta, unions, 0.0)
    best = int(usable.argmax())
    radius = attack_radius(covering.rho, margin, lipschitz)
    if usable[best] == 0:
        return MemorisedRisk(0.0, radius, 0, 0.0, alpha)
    return MemorisedRisk(float(usable[best]), radius, best + 1, float(missed[best]), alpha)
