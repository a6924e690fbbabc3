r"""A sound certificate for the nearest class mean in l2, whose distances are not linear in the labels.

**Learner.** The class whose training points have the mean :math:`\mu_c` nearest to x; an empty class has none.

**Theorem.** Let :math:`p_k = \|x - \mu_k\|` and, for numbers :math:`z_i` that say how far point i pulls the mean of
class k when it enters (and :math:`z'_i` when it leaves), let :math:`A_k(a)` be the sum of the a largest
:math:`\max(z'_i, 0)` of points of class k, :math:`B_k(b)` that of the b largest :math:`\max(z_i, 0)` of all others, and

.. math:: \max_{a' \le a,\; b' \le b} \frac{A_k(a') + B_k(b')}{N_k - a' + b'} \quad (a < N_k).

Call it :math:`V_k(a, b)` for :math:`z_i = z'_i = \|x_i - \mu_k\|`, and :math:`U_k(a, b)`, the part of it along the line
from the mean to x, for :math:`z_j = -z'_j = (x_i - \mu_j) \cdot (x - \mu_j) / p_j` of a rival j and for the opposite
signs of the predicted class c. The prediction c stays under r changed labels, r less than the size of either class,
while for every rival j

.. math:: \max_{s + t = r} \sqrt{p_c^2 + 2 p_c U_c(s, t) + V_c(s, t)^2} + U_j(t, s) < p_j .

**Proof.** Let a points leave class k and b enter. Then :math:`\mu_k` moves by

.. math:: d_k = \frac{\sum_{\text{entered}} (x_i - \mu_k) - \sum_{\text{left}} (x_i - \mu_k)}{N_k - a + b} ,

by the triangle inequality no further than :math:`V_k(a, b)`. The product of :math:`d_j` with the unit vector from
:math:`\mu_j` to x is at most :math:`U_j`, so that :math:`\|x - \mu'_j\| \ge p_j - U_j`. For c the product with the
opposite vector is at most :math:`U_c`, and :math:`\|x - \mu'_c\|^2 = p_c^2 - 2 (x - \mu_c) \cdot d_c + \|d_c\|^2` is at
most what is under the root. All of this grows with a and b. Let s of the changed points leave c or enter j, and t
others enter c or leave j: a point that moves from c to j is one of the s, one that moves back one of the t, and none is
both, so that :math:`s + t \le r`. At most s points leave c and enter j, at most t enter c and leave j. So
:math:`\|x - \mu'_c\| < \|x - \mu'_j\|`. QED.

It is not exact: :math:`V_c` lets all changes pull the mean straight the same way, whatever their directions, and the
points that leave one class need not be those that enter the other. The radius is less than the size of either class.
(For the largest mean *similarity* there is an exact certificate, see
:mod:`lightning_poison.certificates.learners.class_means`.)

**Cost.** The quotient grows with a', so a' = a. For fixed a it is a mean in which point b' + 1 joins with its value
:math:`z_{(b'+1)}`: it rises exactly while that is more than the quotient. Once it is not, the quotient falls but stays
no less than that value, so no later and smaller value is more: there is one peak b*(a), the largest quotient is that of
min(b, b*(a)), and b*(a) is found by bisection, for all a together. An adversary need not use all changes, so the
condition for r implies that for less, and the largest r is found by bisection, too. As :math:`U_k \le V_k`, an r with
:math:`\max V_c + V_j < p_j - p_c` fulfils the condition as well; this takes no sorting of training points, and rivals
that the radius so far passes in this way are left out.

**Rounding.** Sums are rounded up by :math:`32 (n + d) u`, the gaps between distances down by four times that, in units
of the largest norm, and :math:`p_c` by once that (the root less :math:`p_c` falls with it, by no more). The
:math:`z_i` of U err by less than :math:`12 (n + d) u (\|x\| + \max_l \|x_l\|)^2 / p_k`, from products of x and of the
means with the training points and from the direction together; more than twice that is added to each, and V is taken
where it is less. A quotient counts as rising where the next value is larger by :math:`8 (n + d) u`, which is more than
it errs: up to where the bisection ends it then rises in exact arithmetic, and after that by less than
:math:`16 (n + d) u`, half of what sums are rounded up by. A radius is 0 or an r at which the condition itself held.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.functional.checks import check_finite
from lightning_poison.functional.ridge import rows_per_chunk
from lightning_poison.functional.scale import unit_of

__all__ = ["Centroids"]

Vector = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_EPS = torch.finfo(torch.float64).eps
_BYTES = 32 * 2**20  # of the products of a batch of points with all training points
_SMALLEST = 1e-140  # squares of differences below 1e-160 vanish; this times the rounding of norms is more
_REMEDY = "they are too large beside the training points; clean the inputs"


class Centroids:
    """Class means and how far r changed labels can move them.

    Args:
        features: shape (n, d), finite, any float dtype.
        labels: shape (n,), integers in [0, K).
        num_classes: K.

    Attributes:
        unit: the power of two by which all features are multiplied first, 1 where they have an ordinary size.
        means: shape (K, d), float64, times ``unit``; NaN for an empty class.

    Example:
        >>> centroids = Centroids(torch.tensor([[0.0], [0.0], [0.0], [1.0], [1.0], [1.0]]), torch.arange(6) // 3, 2)
        >>> [round(centroids.moved(0, 1, changes), 3) for changes in range(3)]
        [0.0, 0.25, 0.667]
        >>> centroids.certify(torch.tensor([[0.1]]))
        LabelFlipCertificate(prediction=tensor([0]), radius=tensor([2]))
    """

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int) -> None:
        features = check_finite("features", features, remedy="clean the inputs or change the feature map")
        self.unit = unit_of(features)
        features = features.flatten(1).double() * self.unit
        self._num_points = len(features)
        self._size = 16 * sum(features.shape) * _EPS
        self._norm = max(float(features.norm(dim=1).max()), _SMALLEST)
        self._features = features
        labels = labels.long()
        self._members = [(labels == label).nonzero()[:, 0] for label in range(num_classes)]
        self.means = torch.stack([features[members].mean(0) for members in self._members])
        self._with_means = self.means @ features.T
        self._anyhow = [self._moved_anyhow(label) for label in range(num_classes)]

    def certify(self, points: Tensor, advance: Callable[[int], object] = lambda _: None) -> LabelFlipCertificate:
        """Nearest means of points (m, d), and the largest r that the theorem allows; with one class n is the radius.

        Args:
            points: shape (m, d), any float dtype.
            advance: called with the number of points done, batch by batch.

        Raises:
            UserError: points are not finite, or their distances are not.
        """
        points = check_finite("points", points.flatten(1).double() * self.unit, remedy=_REMEDY)
        occupied = torch.tensor([len(members) > 0 for members in self._members])
        distances = _distances(points, self.means)
        check_finite("distances", distances[:, occupied], remedy=_REMEDY)
        distances[:, ~occupied] = torch.inf
        prediction = distances.argmin(1)
        size = self._norm + points.norm(dim=1)
        slack = self._size * size
        gaps = distances - distances.gather(1, prediction[:, None]) - 4 * slack[:, None]
        levels = points @ self.means.T - self.means.square().sum(1)
        radius = torch.full_like(prediction, self._num_points)
        for rows in torch.split(torch.arange(len(points)), rows_per_chunk(self._num_points, budget=_BYTES)):
            for row, products in zip(rows.tolist(), points[rows] @ self._features.T, strict=True):
                asked = _Asked(
                    products,
                    levels[row].tolist(),
                    distances[row].tolist(),
                    gaps[row].tolist(),
                    float(slack[row]),
                    float(self._size * size[row] ** 2),
                )
                radius[row] = self._radius(int(prediction[row]), asked)
            advance(len(rows))
        return LabelFlipCertificate(prediction, radius)

    def _radius(self, own: int, asked: _Asked) -> int:
        """The largest r that the theorem allows for one point; near rivals come first."""
        rivals = sorted(set(range(len(self._members))) - {own}, key=lambda rival: asked.gaps[rival])
        if not rivals:
            return self._num_points
        radius = max(min(len(members) for members in self._members) - 1, 0)
        away = None
        for rival in rivals:
            if not radius or self.moved(own, rival, radius) < asked.gaps[rival]:
                continue
            away = away or self._pulls(own, asked, -1, radius)
            withstands = self._withstands(own, rival, asked, away, self._pulls(rival, asked, 1, radius))
            if not withstands(radius):
                radius = bisect_left(range(1, radius), True, key=lambda changes: not withstands(changes))
        return radius

    def _withstands(self, own: int, rival: int, asked: _Asked, away: _Largest, near: _Largest) -> Callable[[int], bool]:
        """Whether the theorem's condition holds for a rival and a number of changes."""
        from_mean = max(asked.distances[own] - asked.slack, 0.0)

        def withstands(changes: int) -> bool:
            left = np.arange(changes + 1)
            entered = left[::-1]
            own_anyhow, rival_anyhow = self._anyhow[own].of(left, entered), self._anyhow[rival].of(entered, left)
            more = 2 * from_mean * np.minimum(away.of(left, entered), own_anyhow) + own_anyhow**2
            further = more / np.maximum(np.sqrt(from_mean**2 + more) + from_mean, _SMALLEST)
            nearer = np.minimum(near.of(entered, left), rival_anyhow)
            return float((further + nearer).max()) * (1 + self._size) < asked.gaps[rival]

        return withstands

    def _pulls(self, label: int, asked: _Asked, sign: int, size: int) -> _Largest:
        """How far up to ``size`` changes pull the mean of a class towards x (sign 1) or away from it (sign -1)."""
        distance, members = torch.tensor(asked.distances[label], dtype=torch.float64), self._members[label]
        pull = (asked.products - self._with_means[label]).sub_(asked.levels[label]).mul_(sign).div_(distance)
        error = asked.product_error / distance
        leaving = (error - pull[members]).nan_to_num(nan=torch.inf, posinf=torch.inf)
        entering = pull.add_(error).nan_to_num_(nan=torch.inf, posinf=torch.inf)
        entering[members] = 0
        return _Largest(leaving.numpy(), entering.numpy(), len(members), size, self._size / 4)

    def _moved_anyhow(self, label: int) -> _Largest:
        """How far changes move the mean of a class in any direction."""
        entering, members = _distances(self._features, self.means[label, None])[:, 0], self._members[label]
        leaving = entering[members]
        entering[members] = 0
        return _Largest(leaving.numpy(), entering.numpy(), len(members), len(members) - 1, self._size / 4)

    def moved(self, one: int, two: int, changes: int) -> float:
        """How far so many changed labels can move two means, both together, at most: times ``unit``.

        Args:
            one: a class.
            two: another one.
            changes: less than the size of either class.

        Returns:
            No less than the exact number: rounded up.
        """
        left = np.arange(changes + 1)
        both = self._anyhow[one].of(left, left[::-1]) + self._anyhow[two].of(left[::-1], left)
        return float(both.max()) * (1 + self._size)


@dataclass(frozen=True)
class _Asked:
    """Of a point: products with all training points (n,); per class (K,) levels, distances, gaps; its rounding slack.

    A level is the product with the mean less the mean's square. ``product_error`` bounds the error of products with
    x - mean.
    """

    products: Tensor
    levels: list[float]
    distances: list[float]
    gaps: list[float]
    slack: float
    product_error: float


class _Largest:
    """The largest quotients of the theorem, of a class of ``count`` points.

    Args:
        leaving: numbers of the points of the class; negative ones are taken for 0.
        entering: of all others; any number of zeros may stand among them.
        count: size of the class.
        size: at most so many leave, and at most so many enter; less than ``count``.
        error: of a quotient, relative.
    """

    def __init__(self, leaving: Vector, entering: Vector, count: int, size: int, error: float) -> None:
        self._count = count
        leaving, entering = _largest(leaving, size), _largest(entering, size)
        self._leaving, self._entering = (np.concatenate([[0.0], side.cumsum()]) for side in (leaving, entering))
        following = np.append(entering, -np.inf)
        left = np.arange(len(self._leaving))
        low, high = np.zeros_like(left), np.full_like(left, len(self._entering) - 1)
        while (low < high).any():
            middle = (low + high) // 2
            rises = following[middle] > self._quotient(left, middle) * (1 + error)
            low, high = np.where(rises, middle + 1, low), np.where(rises, high, middle)
        self._peak = low

    def of(self, left: Counts, entered: Counts) -> Vector:
        """Where at most so many points leave and so many enter: shape as given."""
        return self._quotient(left, np.minimum(entered, self._peak[left]))

    def _quotient(self, left: Counts, entered: Counts) -> Vector:
        quotient: Vector = (self._leaving[left] + self._entering[entered]) / (self._count - left + entered)
        return quotient


def _largest(values: Vector, size: int) -> Vector:
    """The ``size`` largest (or all there are), the largest first, negative ones taken for 0."""
    fewer = len(values) - min(max(size, 0), len(values))
    if 0 < fewer < len(values):
        values = np.partition(values, fewer)
    largest: Vector = np.sort(values[fewer:])[::-1].clip(min=0)
    return largest


def _distances(points: Tensor, means: Tensor) -> Tensor:
    return torch.cdist(points, means, compute_mode="donot_use_mm_for_euclid_dist")
