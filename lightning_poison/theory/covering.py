r"""Covering data by few balls, and how near the points of a sphere are to a small set of errors.

**Balls.** How much of the data lies in few balls is what the bounds of :mod:`lightning_poison.theory.memorisation` ask
for; it is counted on points that had no say in the choice of the balls.

**Sphere** (Gilmer et al., 2018): in high dimension a small error is close to every point. The data of a class are
uniform on a sphere of dimension D - 1 in :math:`\mathbb R^D`. If the classifier errs on a share p of them, how many lie
within a distance eps of an error?

By the isoperimetric inequality on the sphere (Lévy), among all sets of measure p the cap has the smallest
neighbourhood. The cap :math:`\{x : x_1 \ge \alpha\}` of the unit sphere has measure

.. math:: \tfrac12 I_{1 - \alpha^2}\left(\tfrac{D-1}{2}, \tfrac12\right), \quad \alpha \ge 0,

(I the regularised incomplete beta function), and a point of the sphere at an angle theta from it is at the distance
:math:`2 \sin(\theta / 2)`. So the cap of half-angle :math:`\arccos \alpha + 2 \arcsin(\epsilon / 2)` bounds the
adversarial risk from below. In the Gaussian approximation of the lecture :math:`\alpha \approx Q^{-1}(p) / \sqrt D`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.special import betainc, betaincinv, ndtri
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_finite, check_integer, check_number
from lightning_poison.functional.random_streams import generator
from lightning_poison.functional.scale import unit_of

__all__ = ["BallCovering", "cap_height", "cap_measure", "cover_by_balls", "gaussian_cap_height", "sphere_risk"]

_ORDERS = {"l1": 1.0, "l2": 2.0, "linf": torch.inf}
_ROWS = 512
_EPS = torch.finfo(torch.float64).eps


# --- covering by balls ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BallCovering:
    """Balls, and how many points that had no say in their choice lie in them.

    Args:
        centres: shape (k, d), in the order in which they were chosen.
        classes: shape (k,), int64: the class that counts in each ball.
        rho: radius of the balls.
        norm: "l1", "l2" or "linf".
        in_ball: shape (k,), int64: held-out points of the ball's class in it.
        in_union: shape (k,), int64: held-out points in any of the first 1, 2, ..., k balls, of that ball's class.
        held_out: number of held-out points.
    """

    centres: Tensor
    classes: Tensor
    rho: float
    norm: str
    in_ball: Tensor
    in_union: Tensor
    held_out: int


def cover_by_balls(
    inputs: Tensor, labels: Tensor, rho: float, norm: str = "l2", max_balls: int = 50, seed: int = 0
) -> BallCovering:
    """Cover half of the points greedily by balls around some of them, and count the other half in the balls.

    Each ball is centred at a point, counts for its class, and is the one that holds the most points of its class that
    no earlier ball holds. Choosing on one half and counting on the other keeps the counts honest.

    Args:
        inputs: shape (m, ...), float, m >= 2.
        labels: shape (m,), integers: true labels.
        rho: radius of the balls, in the units of the inputs.
        norm: "l1", "l2" or "linf".
        max_balls: at most so many.
        seed: of the split into halves.

    Raises:
        UserError: an argument is out of its range.

    Example:
        >>> points = torch.tensor([[0.0], [0.1], [5.0], [5.1], [0.05], [5.05], [0.0], [5.0]])
        >>> covering = cover_by_balls(points, (points[:, 0] > 1).long(), rho=0.2)
        >>> len(covering.centres), int(covering.in_union[-1]) == covering.held_out
        (2, True)
    """
    order = _ORDERS[check_choice("norm", norm, _ORDERS)]
    rho = check_number("rho", rho, minimum=0)
    max_balls = check_integer("max_balls", max_balls, minimum=1)
    if len(inputs) < 2 or len(inputs) != len(labels):
        raise UserError(f"inputs must be two or more, with a label each, got {len(inputs)} and {len(labels)} labels")
    points = check_finite("inputs", inputs, remedy="remove the broken samples").flatten(1).double()
    unit = unit_of(points)
    scaled, reach = points * unit, rho * unit
    shuffled = torch.randperm(len(points), generator=generator(seed, "covering"))
    chosen_from, held_out = shuffled[::2], shuffled[1::2]
    centres = chosen_from[_greedy(_within(scaled, labels, chosen_from, chosen_from, reach, order), max_balls)]
    rounded_down = reach * (1 - 4 * (points.shape[1] + 8) * _EPS)
    inside = _within(scaled, labels, centres, held_out, rounded_down, order, exact=True)
    return BallCovering(
        points[centres],
        labels[centres].long(),
        float(rho),
        norm,
        inside.sum(1),
        inside.cummax(0).values.sum(1),
        len(held_out),
    )


def _within(
    points: Tensor, labels: Tensor, centres: Tensor, others: Tensor, rho: float, order: float, exact: bool = False
) -> Tensor:
    """Which of ``others`` lie in the ball around each of ``centres`` and are of its class: shape (k, m), bool.

    The fast way to many distances, by inner products, cancels far from the origin: good enough to choose, not to count.
    """
    mode = "donot_use_mm_for_euclid_dist" if exact else "use_mm_for_euclid_dist_if_necessary"
    near = [
        torch.cdist(points[rows], points[others], p=order, compute_mode=mode) <= rho
        for rows in torch.split(centres, _ROWS)
    ]
    return torch.cat(near) & (labels[centres][:, None] == labels[others][None, :])


def _greedy(covered_by: Tensor, max_balls: int) -> Tensor:
    """Rows that cover the most columns, one after the other; the first among equals."""
    rows: list[int] = []
    left = torch.ones(covered_by.shape[1], dtype=torch.bool)
    while len(rows) < max_balls and left.any():
        best = int((covered_by & left).sum(1).argmax())
        left &= ~covered_by[best]
        rows.append(best)
    return torch.tensor(rows)


# --- caps of the sphere -----------------------------------------------------------------------------------------------


def sphere_risk(error: float, dim: int, eps: float, radius: float = 1.0) -> float:
    """Lower bound on the share of a sphere's points that lie within ``eps`` of an error.

    Args:
        error: share p of the sphere's points on which the classifier errs.
        dim: D, dimension of the space.
        eps: l2 size of the change.
        radius: of the sphere.

    Returns:
        at least this share can be moved, along the sphere, into an error; 0 without errors.

    Raises:
        UserError: an argument is out of its range.

    Example:
        >>> round(sphere_risk(0.001, dim=500, eps=0.0), 3), round(sphere_risk(0.001, dim=500, eps=0.2), 2)
        (0.001, 0.92)
    """
    eps = check_number("eps", eps, minimum=0)
    radius = check_number("radius", radius, minimum=1e-300, remedy="it is the radius of the sphere")
    if check_number("error", error, minimum=0, maximum=1) == 0:
        return 0.0
    angle = _half_angle(error, dim) + 2 * math.asin(min(1.0, eps / radius / 2))
    return 1.0 if angle >= math.pi else max(error, _measure(angle, dim))


def cap_measure(height: float, dim: int) -> float:
    """Share of the unit sphere in ``dim`` dimensions whose first coordinate is at least ``height``.

    Raises:
        UserError: height is not in [-1, 1], or dim is less than 2.

    Example:
        >>> round(cap_measure(0.5, dim=3), 12)  # in three dimensions (1 - height) / 2
        0.25
    """
    return _measure(math.acos(check_number("height", height, minimum=-1, maximum=1)), dim)


def cap_height(measure: float, dim: int) -> float:
    """The height of the cap of a given measure: the inverse of :func:`cap_measure`.

    Raises:
        UserError: measure is not in [0, 1], or dim is less than 2.

    Example:
        >>> round(cap_height(0.01, dim=500), 4), round(cap_height(0.01, dim=3), 4)
        (0.1039, 0.98)
    """
    return math.cos(_half_angle(measure, dim))


def gaussian_cap_height(measure: float, dim: int) -> float:
    """The lecture's approximation of :func:`cap_height`, Q^-1(p) / sqrt(D).

    Example:
        >>> round(gaussian_cap_height(0.01, dim=500), 4)
        0.104
    """
    return -float(ndtri(check_number("measure", measure, minimum=0, maximum=1))) / math.sqrt(dim)


def _measure(angle: float, dim: int) -> float:
    """Measure of the cap of a half-angle: through the angle, as the height of a small cap is 1 to the last bit."""
    half = 0.5 * float(betainc((check_integer("dim", dim, minimum=2) - 1) / 2, 0.5, math.sin(angle) ** 2))
    return half if angle <= math.pi / 2 else 1 - half


def _half_angle(measure: float, dim: int) -> float:
    tail = min(check_number("measure", measure, minimum=0, maximum=1), 1 - measure)
    square = float(betaincinv((check_integer("dim", dim, minimum=2) - 1) / 2, 0.5, 2 * tail))
    angle = math.asin(math.sqrt(square))
    return angle if measure <= 0.5 else math.pi - angle
