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

**Cost.** As :math:`U_k \le V_k`, all r with :math:`\max V_c + V_j < p_j - p_c`, where the left side is the same for all
x, fulfil the condition. They are found first; rivals come by their number, and those for which it is no less than the
radius so far are left out.

**Rounding.** Sums are rounded up by :math:`32 (n + d) u`, the gaps between distances down by four times that, in units
of the largest norm, and :math:`p_c` by once that (the root less :math:`p_c` falls with it, by no more). The
:math:`z_i` of U err by less than :math:`12 (n + d) u (\|x\| + \max_l \|x_l\|)^2 / p_k`, from products of x and of the
means with the training points and from the direction together; more than twice that is added to each, and V is taken
where it is less.
"""

from __future__ import annotations

import math
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

_EPS = torch.finfo(torch.float64).eps
_BYTES = 32 * 2**20  # of the products of a batch of points with all training points
_FIRST_SIZE = 64
_GROWTH = 4
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
        self._features = features
        self._labels = labels.long()
        members = [self._labels == label for label in range(num_classes)]
        self._counts = torch.tensor([int(chosen.sum()) for chosen in members])
        self.means = torch.stack([features[chosen].mean(0) for chosen in members])
        self._with_means = features @ self.means.T
        self._labels = labels.long()
        self._moves = [
            _Moves.of(_distances(features, mean[None])[:, 0], chosen)
            for mean, chosen in zip(self.means, members, strict=True)
        ]

    def certify(self, points: Tensor, advance: Callable[[int], object] = lambda _: None) -> LabelFlipCertificate:
        """Nearest means of points (m, d), and the largest r that the theorem allows; with one class n is the radius.

        Args:
            points: shape (m, d), any float dtype.
            advance: called with the number of points done, batch by batch.

        Raises:
            UserError: points are not finite, or their distances are not.
        """
        points = check_finite("points", points.flatten(1).double() * self.unit, remedy=_REMEDY)
        occupied = torch.tensor([moves.count > 0 for moves in self._moves])
        distances = _distances(points, self.means)
        check_finite("distances", distances[:, occupied], remedy=_REMEDY)
        distances[:, ~occupied] = torch.inf
        prediction = distances.argmin(1)
        size = self._norm + points.norm(dim=1)
        slack = self._size * size
        gaps = distances - distances.gather(1, prediction[:, None]) - 4 * slack[:, None]
        either_way = self._either_way(prediction, gaps)
        radius = torch.full_like(prediction, self._num_points)
        for rows in torch.split(torch.arange(len(points)), rows_per_chunk(self._num_points, budget=_BYTES)):
            products = points[rows] @ self._features.T
            asked = _Asked(
                points[rows], products, distances[rows], gaps[rows], slack[rows], self._size * size[rows] ** 2
            )
            radius[rows] = self._along_lines(prediction[rows], asked, either_way[rows])
            advance(len(rows))
        return LabelFlipCertificate(prediction, radius)

    def _either_way(self, prediction: Tensor, gaps: Tensor) -> Tensor:
        """For each rival the largest r with V_c + V_j below the gaps (m, K); n for the class itself."""
        withstood = torch.full(gaps.shape, self._num_points)
        for own in set(prediction.tolist()):
            rows = (prediction == own).nonzero()[:, 0]
            for rival in set(range(len(self._moves))) - {own}:
                asked = gaps[rows, rival]
                needed = self.moved(own, rival, float(asked.max()))
                withstood[rows, rival] = (torch.searchsorted(needed, asked.contiguous()) - 1).clamp(min=0)
        return withstood

    def _along_lines(self, own: Tensor, asked: _Asked, either_way: Tensor) -> Tensor:
        """Radii (m,); rivals come by what is withstood either way, as long as that is less than the radius so far."""
        radius = torch.full_like(own, self._num_points)
        for rival in either_way.argsort(dim=1)[:, : len(self._moves) - 1].T:
            found = either_way.gather(1, rival[:, None])[:, 0]
            todo, size = (found < radius).nonzero()[:, 0], _FIRST_SIZE
            while len(todo):
                reached, stopped = self._along_line(own[todo], rival[todo], asked.of(todo), size)
                found[todo] = torch.maximum(found[todo], reached)
                todo, size = todo[~stopped & (found[todo] < radius[todo])], size * _GROWTH
            radius = torch.minimum(radius, found)
        return radius

    def _along_line(self, own: Tensor, rival: Tensor, asked: _Asked, size: int) -> tuple[Tensor, Tensor]:
        """The largest r below ``size`` for which the theorem's condition holds, and whether it fails for r + 1."""
        away, near = self._pulls(own, asked, -1, size), self._pulls(rival, asked, 1, size)
        of_own, of_rival = self._moved_anyhow(own, size), self._moved_anyhow(rival, size)
        gaps = asked.gaps.gather(1, rival[:, None])[:, 0]
        from_mean = (asked.distances.gather(1, own[:, None]) - asked.slack[:, None]).clamp(min=0)
        count = torch.minimum(self._counts[own], self._counts[rival])
        reached, holds = torch.zeros_like(own), torch.ones_like(own, dtype=torch.bool)
        for changes in range(size):
            anyhow = of_own.grown(changes)
            along = torch.minimum(away.grown(changes), anyhow)
            more = 2 * from_mean * along + anyhow.square()
            further = more / ((from_mean.square() + more).sqrt() + from_mean).clamp(min=_SMALLEST)
            nearer = torch.minimum(near.grown(changes), of_rival.grown(changes)).flip(1)
            holds &= ((further + nearer).amax(1) * (1 + self._size) < gaps) & (changes < count)
            if not holds.any():
                break
            reached[holds] = changes
        return reached, ~holds

    def _pulls(self, label: Tensor, asked: _Asked, sign: int, size: int) -> _Largest:
        """How far changes pull the mean of a class (m,) towards x (sign 1) or away from it (sign -1)."""
        means, distance = self.means[label], asked.distances.gather(1, label[:, None])
        level = (asked.points * means).sum(1) - means.square().sum(1)
        towards = asked.products - self._with_means[:, label].T - level[:, None]
        entering, error = sign * towards / distance, asked.product_error[:, None] / distance
        members = self._labels == label[:, None]
        sums = [
            _sums_of_largest((pull + error).nan_to_num(nan=torch.inf, posinf=torch.inf).masked_fill(others, 0), size)
            for pull, others in ((-entering, ~members), (entering, members))
        ]
        return _Largest(self._counts[label, None], *sums)

    def _moved_anyhow(self, label: Tensor, size: int) -> _Largest:
        """How far changes move the mean of a class (m,) in any direction."""
        sums = [
            torch.stack([_filled_up(getattr(moves, side), size) for moves in self._moves])[label]
            for side in ("leaving", "entering")
        ]
        return _Largest(self._counts[label, None], *sums)

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
class _Asked:
    """Points (m, d), their products with all training points (m, n), distances and gaps (m, K), rounding slacks (m,).

    ``product_error`` bounds the error of products with x - mean.
    """

    points: Tensor
    products: Tensor
    distances: Tensor
    gaps: Tensor
    slack: Tensor
    product_error: Tensor

    def of(self, rows: Tensor) -> _Asked:
        return _Asked(*(part[rows] for part in vars(self).values()))


class _Largest:
    """Largest quotients of classes of ``count`` points (m, 1), of sums of what leaves and enters, (m, size + 1)."""

    def __init__(self, count: Tensor, leaving: Tensor, entering: Tensor) -> None:
        self.count, self.leaving, self.entering = count, leaving, entering
        self._seen = torch.zeros_like(leaving)

    def grown(self, changes: int) -> Tensor:
        """Entry a: at most a points leave and ``changes - a`` enter; called for 0, 1, 2, ... in turn."""
        left = torch.arange(changes + 1)
        entering = self.entering[:, : changes + 1].flip(1)
        now = (self.leaving[:, : changes + 1] + entering) / (self.count + changes - 2 * left)
        seen = self._seen[:, : changes + 1]
        return torch.maximum(seen, now, out=seen)


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


def _sums_of_largest(values: Tensor, size: int) -> Tensor:
    """Sums of the 0, 1, ..., ``size`` largest of each row, (m, size + 1), negative ones taken for 0."""
    largest = values.topk(min(size, values.shape[1]), dim=1).values.clamp(min=0)
    return torch.nn.functional.pad(largest, (1, size - largest.shape[1])).cumsum(1)


def _filled_up(sums: Vector, size: int) -> Tensor:
    """The first ``size + 1`` sums; the last one again where there are fewer."""
    return torch.from_numpy(sums[np.minimum(np.arange(size + 1), len(sums) - 1)])


def _distances(points: Tensor, means: Tensor) -> Tensor:
    return torch.cdist(points, means, compute_mode="donot_use_mm_for_euclid_dist")
