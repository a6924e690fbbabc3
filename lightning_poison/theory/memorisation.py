r"""How vulnerable a classifier is that memorises label noise: the bound (Sanyal et al., 2021), and from data.

**Setting.** n training points are drawn independently; each gets a wrong label with probability eta, else its true
label c(x). (The thesis states theorem 1 with the *right* label at probability eta, but its proof, like the paper,
multiplies the mass of a ball by eta to get the probability of a *mislabelled* point in it; with the statement's eta
the bound is wrong by a factor eta / (1 - eta), in the dangerous direction for small noise. Here eta is the probability
of a wrong label.) The classifier has learnt every training label.

**Regions.** Balls of radius rho around the points of a finite set zeta; of the s-th ball only the part of one class,
A_s = {x in the ball : c(x) = class of s}, counts. (The thesis asks that balls be pure. This is not needed: every
distance below is between two points of one A_s.) Each A_s has a mass of at least c_2 / |zeta|, their union one of at
least c_1.

**Theorem 1.** If :math:`n \ge \frac{|\zeta|}{\eta c_2} \log \frac{|\zeta|}{\delta}`, then with probability 1 - delta
the share of points that can be changed by at most 2 rho so that the classifier errs is at least c_1.

**Proof.** A given A_s holds no mislabelled training point with probability at most :math:`(1 - \eta c_2/|\zeta|)^n \le
e^{-n \eta c_2 / |\zeta|} \le \delta / |\zeta|`. By the union bound all hold one with probability 1 - delta. Then a
point z of A_s is at most 2 rho away from a training point x' of the same true class whose learnt label is wrong. QED.

**Theorem 2.** If moreover the classifier's probabilities have a margin of at least chi (first minus second) at the
mislabelled training points and change by at most kappa in l1 norm for each unit of distance, then every attack radius
above :math:`\max(0, 2 \rho - \chi / \kappa)` suffices.

**Proof.** For another class to reach that of x', their difference must fall by chi, so the l1 norm of the change is at
least chi: within a distance less than chi / kappa of x' the prediction is its wrong label. It suffices to move z
towards x' until it is that close. (At chi / kappa itself a tie is possible; hence *above*.) QED.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer, check_number
from lightning_poison.functional.intervals import binomial_lower
from lightning_poison.theory.covering import BallCovering

__all__ = [
    "MemorisationBound",
    "MemorisedRisk",
    "attack_radius",
    "memorisation_bound",
    "memorised_risk",
    "samples_needed",
]


# --- the bound --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MemorisationBound:
    """A lower bound on adversarial risk.

    Args:
        samples: number of training points from which on it holds.
        attack_radius: size of the changes, in the norm of the balls.
        risk: at least this share of points can be changed into an error.
        confidence: probability, over the training set, that it holds.
    """

    samples: int
    attack_radius: float
    risk: float
    confidence: float


def memorisation_bound(
    num_balls: int,
    rho: float,
    c1: float,
    c2: float,
    noise: float,
    delta: float,
    margin: float = 0.0,
    lipschitz: float = math.inf,
) -> MemorisationBound:
    """Theorem 1, or with ``margin`` and ``lipschitz`` theorem 2.

    Args:
        num_balls: size of zeta.
        rho: radius of the balls.
        c1: mass of their union, at least ``c2``.
        c2: |zeta| times the mass of the lightest ball.
        noise: eta, the probability of a *wrong* label.
        delta: probability that the bound fails.
        margin: chi; measured, the result is as good as the measurement.
        lipschitz: kappa; an estimate from below (every measurement is one) makes the attack radius too small.

    Raises:
        UserError: an argument is out of its range.

    Example:
        >>> memorisation_bound(10, rho=0.5, c1=0.6, c2=0.5, noise=0.1, delta=0.05, margin=0.5, lipschitz=1.0)
        MemorisationBound(samples=1060, attack_radius=0.5, risk=0.6, confidence=0.95)
    """
    if not c2 <= check_number("c1", c1, minimum=0, maximum=1):
        raise UserError(f"c1 must be at least c2 = {c2:g}, got {c1:g}; lower c2, which is always allowed")
    samples = samples_needed(num_balls, c2, noise, delta)
    return MemorisationBound(samples, attack_radius(rho, margin, lipschitz), c1, 1 - delta)


def samples_needed(num_balls: int, c2: float, noise: float, delta: float) -> int:
    """The least integer n >= (|zeta| / (eta c_2)) log(|zeta| / delta) of theorems 1 and 2.

    Args:
        num_balls: size of zeta.
        c2: |zeta| times the mass of the lightest ball, in (0, 1].
        noise: eta, the probability of a *wrong* label, in (0, 1].
        delta: probability, in (0, 1), that the bound fails.

    Raises:
        UserError: an argument is out of its range.

    Example:
        >>> samples_needed(num_balls=10, c2=0.5, noise=0.1, delta=0.05)
        1060
    """
    num_balls = check_integer("num_balls", num_balls, minimum=1)
    c2, noise, delta = (_positive(name, value) for name, value in (("c2", c2), ("noise", noise), ("delta", delta)))
    exact = num_balls / (noise * c2) * math.log(num_balls / delta)
    return max(1, math.ceil(exact * (1 + 1e-14)))


def attack_radius(rho: float, margin: float = 0.0, lipschitz: float = math.inf) -> float:
    """2 rho - chi / kappa, and 0 where that is negative.

    Args:
        rho: radius of the balls.
        margin: chi, probability of the first minus that of the second class at the mislabelled training points.
        lipschitz: kappa, change of the probabilities in l1 norm for each unit of distance; infinite: theorem 1.

    Raises:
        UserError: an argument is out of its range.

    Example:
        >>> attack_radius(1.0), attack_radius(1.0, margin=0.8, lipschitz=2.0)
        (2.0, 1.6)
    """
    rho = check_number("rho", rho, minimum=0)
    margin = check_number("margin", margin, minimum=0, maximum=1, remedy="the training labels must be learnt")
    if math.isnan(lipschitz) or lipschitz <= 0:
        raise UserError(f"lipschitz must be positive, got {lipschitz!r}; infinity stands for any classifier")
    return max(0.0, 2 * rho - margin / lipschitz)


def _positive(name: str, value: float) -> float:
    if check_number(name, value, minimum=0, maximum=1) == 0:
        raise UserError(f"{name} must be positive, got 0; the bound says nothing otherwise")
    return value


# --- with masses estimated from data ----------------------------------------------------------------------------------


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
        >>> from lightning_poison.theory import cover_by_balls
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
