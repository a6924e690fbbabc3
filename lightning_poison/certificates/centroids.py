r"""A sound certificate for the nearest class mean in l2, whose distances are not linear in the labels.

**Learner.** The class whose training points have the mean :math:`\mu_c` nearest to x; an empty class has none.

**Theorem.** Let :math:`A_k(a)` be the sum of the a largest distances :math:`\|x_i - \mu_k\|` of points of class k,
:math:`B_k(b)` that of the b largest of all other points. With at most r changed labels the mean of class k moves by at
most

.. math:: \delta_k(r) = \max_{a + b \le r} \frac{A_k(a) + B_k(b)}{N_k - a + b} \quad (r < N_k),

and the prediction c stays while :math:`\delta_c(r) + \delta_j(r) < \|x - \mu_j\| - \|x - \mu_c\|` for every rival j.

**Proof.** A change moves one point out of a class, into it, or neither; let a points leave and b enter. Then
:math:`(N_k - a + b) (\mu'_k - \mu_k) = \sum_{\text{entered}} (x_i - \mu_k) - \sum_{\text{left}} (x_i - \mu_k)`, and the
triangle inequality gives the bound, and from it :math:`\|x - \mu'_c\| < \|x - \mu'_j\|`. QED.

It is not exact: it lets all changes pull the means straight towards and away from x, whatever their directions. The
radius is less than the size of either class. (For the largest mean *similarity* there is an exact certificate, see
:mod:`lightning_poison.certificates.class_means`.) Sums are rounded up by :math:`32 (n + d) u`, the gaps
between distances down by four times that, in units of the largest norm.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.functional.checks import check_finite
from lightning_poison.functional.scale import unit_of

__all__ = ["Centroids"]

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
        shifts: for each class the bounds for r = 0, 1, ..., N_k - 1, shape (N_k,), float64, rising; (0,) if empty.

    Example:
        >>> centroids = Centroids(torch.tensor([[0.0], [0.0], [0.0], [1.0], [1.0], [1.0]]), torch.arange(6) // 3, 2)
        >>> centroids.shifts[0].round(decimals=3).tolist()
        [0.0, 0.25, 0.4]
        >>> centroids.certify(torch.tensor([[0.1]]))
        LabelFlipCertificate(prediction=tensor([0]), radius=tensor([1]))
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
        self.shifts = [
            _shifts(_distances(features, mean[None])[:, 0], chosen) * (1 + self._size) if chosen.any() else mean[:0]
            for mean, chosen in zip(self.means, members, strict=True)
        ]

    def certify(self, points: Tensor) -> LabelFlipCertificate:
        """Nearest means of points (m, d), and the largest r that the theorem allows; with one class n is the radius.

        Raises:
            UserError: points are not finite, or their distances are not.
        """
        points = check_finite("points", points.flatten(1).double() * self.unit, remedy=_REMEDY)
        occupied = torch.tensor([len(shifts) > 0 for shifts in self.shifts])
        distances = _distances(points, self.means)
        check_finite("distances", distances[:, occupied], remedy=_REMEDY)
        distances[:, ~occupied] = torch.inf
        prediction = distances.argmin(1)
        slack = self._size * (self._norm + points.norm(dim=1))
        gaps = distances - distances.gather(1, prediction[:, None]) - 4 * slack[:, None]
        radius = torch.full_like(prediction, self._num_points)
        for own in set(prediction.tolist()):
            rows = (prediction == own).nonzero()[:, 0]
            for rival in set(range(len(self.shifts))) - {own}:
                count = min(len(self.shifts[own]), len(self.shifts[rival]))
                needed = self.shifts[own][:count] + self.shifts[rival][:count]
                withstood = torch.searchsorted(needed, gaps[rows, rival].contiguous()) - 1
                radius[rows] = torch.minimum(radius[rows], withstood.clamp(min=0))
        return LabelFlipCertificate(prediction, radius)


def _distances(points: Tensor, means: Tensor) -> Tensor:
    return torch.cdist(points, means, compute_mode="donot_use_mm_for_euclid_dist")


def _shifts(distances: Tensor, members: Tensor) -> Tensor:
    """delta_k(r) for r = 0, ..., N_k - 1 from the distances of all points to the mean."""
    count = int(members.sum())
    leaving, entering = (
        torch.cat([side.new_zeros(1), side.sort(descending=True).values[: count - 1].cumsum(0)])
        for side in (distances[members], distances[~members])
    )
    shifts = []
    for changes in range(count):
        left = torch.arange(max(changes - len(entering) + 1, 0), changes + 1)
        entered = changes - left
        shifts.append(((leaving[left] + entering[entered]) / (count - left + entered)).max())
    return torch.stack(shifts).cummax(0).values
