r"""A sound certificate for the nearest class mean in l2, whose distances are not linear in the labels.

**Learner.** The class whose training points have the mean :math:`\mu_c` nearest to x; an empty class has none.

**Theorem.** Let :math:`A_k(a)` be the sum of the a largest distances :math:`\|x_i - \mu_k\|` of points of class k,
:math:`B_k(b)` that of the b largest of all other points, and

.. math:: V_k(a, b) = \max_{a' \le a,\; b' \le b} \frac{A_k(a') + B_k(b')}{N_k - a' + b'} \quad (a < N_k).

The prediction c stays under r changed labels, r less than the size of either class, while for every rival j

.. math:: \max_{s + t = r} V_c(s, t) + V_j(t, s) < \|x - \mu_j\| - \|x - \mu_c\| .

**Proof.** Let a points leave class k and b enter. Then
:math:`(N_k - a + b) (\mu'_k - \mu_k) = \sum_{\text{entered}} (x_i - \mu_k) - \sum_{\text{left}} (x_i - \mu_k)`, and by
the triangle inequality the mean moves by at most :math:`V_k(a, b)`, which grows with a and b. Let s of the changed
points leave c or enter j, and t others enter c or leave j: a point that moves from c to j is one of the s, one that
moves back one of the t, and none is both, so that :math:`s + t \le r`. At most s points leave c and enter j, at most t
enter c and leave j. So both means together move by at most the left side, and :math:`\|x - \mu'_c\| < \|x - \mu'_j\|`.
QED.

It is not exact: it lets all changes pull the means straight towards and away from x, whatever their directions, and
the points that leave one class need not be those that enter the other. The radius is less than the size of either
class. (For the largest mean *similarity* there is an exact certificate, see
:mod:`lightning_poison.certificates.class_means`.) Sums are rounded up by :math:`32 (n + d) u`, the gaps
between distances down by four times that, in units of the largest norm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.functional.checks import check_finite
from lightning_poison.functional.scale import unit_of

__all__ = ["Centroids"]

Vector = npt.NDArray[np.float64]

_EPS = torch.finfo(torch.float64).eps
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
        >>> centroids.moved(0, 1).round(decimals=3).tolist()
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
        members = [labels.long() == label for label in range(num_classes)]
        self.means = torch.stack([features[chosen].mean(0) for chosen in members])
        self._moves = [
            _Moves.of(_distances(features, mean[None])[:, 0], chosen)
            for mean, chosen in zip(self.means, members, strict=True)
        ]

    def certify(self, points: Tensor) -> LabelFlipCertificate:
        """Nearest means of points (m, d), and the largest r that the theorem allows; with one class n is the radius.

        Raises:
            UserError: points are not finite, or their distances are not.
        """
        points = check_finite("points", points.flatten(1).double() * self.unit, remedy=_REMEDY)
        occupied = torch.tensor([moves.count > 0 for moves in self._moves])
        distances = _distances(points, self.means)
        check_finite("distances", distances[:, occupied], remedy=_REMEDY)
        distances[:, ~occupied] = torch.inf
        prediction = distances.argmin(1)
        slack = self._size * (self._norm + points.norm(dim=1))
        gaps = distances - distances.gather(1, prediction[:, None]) - 4 * slack[:, None]
        radius = torch.full_like(prediction, self._num_points)
        for own in set(prediction.tolist()):
            rows = (prediction == own).nonzero()[:, 0]
            for rival in set(range(len(self._moves))) - {own}:
                asked = gaps[rows, rival]
                needed = self.moved(own, rival, float(asked.max()))
                withstood = torch.searchsorted(needed, asked.contiguous()) - 1
                radius[rows] = torch.minimum(radius[rows], withstood.clamp(min=0))
        return LabelFlipCertificate(prediction, radius)

    def moved(self, one: int, two: int, enough: float = math.inf) -> Tensor:
        """How far r changed labels can move two means, both together: for r = 0, 1, ..., at most.

        Args:
            one: a class.
            two: another one.
            enough: go no further once they move so far.

        Returns:
            shape (R,), float64, rising, times ``unit``; R is at most the size of the smaller class, 0 if it is empty.
        """
        first, second = self._moves[one], self._moves[two]
        count = min(first.count, second.count)
        of_first, of_second, bounds = np.zeros(count), np.zeros(count), [0.0]
        for changes in range(count):
            # Entry s becomes V(s, r - s): the quotient grows with a, and those with fewer that enter were seen before.
            left = np.arange(changes + 1)
            for moves, seen in ((first, of_first[: changes + 1]), (second, of_second[: changes + 1])):
                np.maximum(seen, moves.shift(left, changes - left), out=seen)
            both = float((of_first[: changes + 1] + of_second[changes::-1]).max())
            bounds.append(max(bounds[-1], both * (1 + self._size)))
            if bounds[-1] > enough:
                break
        return torch.tensor(bounds[1:], dtype=torch.float64)


@dataclass(frozen=True)
class _Moves:
    """A class of ``count`` points, and sums of the largest distances to its mean: of its points and of all others."""

    count: int
    leaving: Vector
    entering: Vector

    @classmethod
    def of(cls, distances: Tensor, members: Tensor) -> _Moves:
        """Of the distances of all points (n,), and which of them are members."""
        own, others = (
            np.concatenate([[0.0], side.sort(descending=True).values.cumsum(0).numpy()])
            for side in (distances[members], distances[~members])
        )
        return cls(int(members.sum()), own, others)

    def shift(self, left: npt.NDArray[np.int64], entered: npt.NDArray[np.int64]) -> Vector:
        """How far the mean moves when so many points leave and enter, at most: shape as given."""
        entered = np.minimum(entered, len(self.entering) - 1)
        moved: Vector = (self.leaving[left] + self.entering[entered]) / (self.count - left + entered)
        return moved


def _distances(points: Tensor, means: Tensor) -> Tensor:
    return torch.cdist(points, means, compute_mode="donot_use_mm_for_euclid_dist")
