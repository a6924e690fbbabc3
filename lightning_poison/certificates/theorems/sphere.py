r"""Why a small error on a sphere in high dimension is close to every point (Gilmer et al., 2018).

The data of a class are uniform on a sphere of dimension D - 1 in :math:`\mathbb R^D`. If the classifier errs on a share
p of them, how many lie within a distance eps of an error?

By the isoperimetric inequality on the sphere (Lévy), among all sets of measure p the cap has the smallest
neighbourhood. The cap :math:`\{x : x_1 \ge \alpha\}` of the unit sphere has measure

.. math:: \tfrac12 I_{1 - \alpha^2}\left(\tfrac{D-1}{2}, \tfrac12\right), \quad \alpha \ge 0,

(I the regularised incomplete beta function), and a point of the sphere at an angle theta from it is at the distance
:math:`2 \sin(\theta / 2)`. So the cap of half-angle :math:`\arccos \alpha + 2 \arcsin(\epsilon / 2)` bounds the
adversarial risk from below. In the Gaussian approximation of the lecture :math:`\alpha \approx Q^{-1}(p) / \sqrt D`.
"""

from __future__ import annotations

import math

from scipy.special import betainc, betaincinv, ndtri

from lightning_poison.functional.checks import check_integer, check_number

__all__ = ["cap_height", "cap_measure", "gaussian_cap_height", "sphere_risk"]


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


def _measure(angle: float, dim: int) -> float:
    """Measure of the cap of a half-angle: through the angle, as the height of a small cap is 1 to the last bit."""
    half = 0.5 * float(betainc((check_integer("dim", dim, minimum=2) - 1) / 2, 0.5, math.sin(angle) ** 2))
    return half if angle <= math.pi / 2 else 1 - half


def _half_angle(measure: float, dim: int) -> float:
    tail = min(check_number("measure", measure, minimum=0, maximum=1), 1 - measure)
    square = float(betaincinv((check_integer("dim", dim, minimum=2) - 1) / 2, 0.5, 2 * tail))
    angle = math.asin(math.sqrt(square))
    return angle if measure <= 0.5 else math.pi - angle
