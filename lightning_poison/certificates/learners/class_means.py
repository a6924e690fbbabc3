r"""Learners that compare a point with the mean of each class, and their certificates.

The certificate of learners that compare class *means* of similarities, which are not linear in the labels.

**Learner.** A point x gets similarities k_1, ..., k_n that see no label; the score of class c is their **mean** over
the training points of label c (an empty class has none and is never predicted), the prediction the class of the
largest score, the lowest index among equals. A changed label moves the sum and the number of points, so the theorem of
:mod:`lightning_poison.certificates.label_linear` does not hold.

**Theorem.** After a change of labels rival j (not empty) reaches c if and only if for some threshold t

.. math:: D_j = \sum_{i: y'_i = j} (t - k_i) \le 0 \quad\text{and}\quad D_c = \sum_{i: y'_i = c} (k_i - t) \le 0 .

For a given t the fewest changes are a + b + e, minimal over a: the a largest of the gains :math:`k_i - t` of points of
class c (given to j) and :math:`t - k_i` of points of class j (given to c) count for both sums; the b largest
:math:`k_i - t` of other points (given to j) then fill up :math:`D_j`, and the e largest :math:`t - k_i` of other points
(given to c) fill up :math:`D_c`, as few as do.

**Proof.** The mean of j is at least that of c exactly when some t lies between them, and both sums say that it does; an
emptied class c has :math:`D_c = 0`. For fixed t the sums are linear in the labels. A label c changed to j takes
:math:`k_i - t` off both, to another class off :math:`D_c` alone, so j is never worse where that helps at all; likewise
a label j is best changed to c. Another label helps :math:`D_j` where :math:`k_i > t` and :math:`D_c` where
:math:`k_i < t`, never both. So each of the three lists is used from its largest gain down. Only if that gives away
every point of j and adds none, j is empty and has not won: then either another point moves in, or the j point of least
gain stays and the c point of largest gain goes instead. QED.

**All thresholds at once.** With t from an interval [p, q], :math:`D_j` is at least what it is at p, :math:`D_c` at
least what it is at q, and no gain exceeds :math:`k_i - p` or :math:`q - k_i`; the same minimum with these values is a
lower bound for the whole interval, and at a single t it is the fewest. Bisection of the interval of smallest bound
(branch and bound over one dimension) ends when no bound is below the fewest found: then the radius is exact, but for
ties. Where it is stopped before, the smallest bound counts, so that the radius is never too large.

**Rounding.** As in :mod:`lightning_poison.certificates.label_linear`, 16 n u times the sum of all magnitudes is taken
off both sums first; and, as a mean may round where sums do not, n times the smallest ordinary number.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_poison.certificates.centroids import Centroids
from lightning_poison.certificates.features import LabelFreeFeatures
from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.certificates.learner import Advance, CertifiedLearner
from lightning_poison.certificates.learners.kernels import Kernel, SimilarityToTraining
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, check_labels

__all__ = ["MeanSimilarity", "NearestCentroid", "certify_class_means"]


# --- the certificate of learners that compare class *means* of similarities, which are not linear in the labels -------

Vector = npt.NDArray[np.float64]

_SPLITS = 400
_NEVER = 2**40


def certify_class_means(
    similarities: Tensor | Iterable[Tensor], labels: Tensor, num_classes: int
) -> LabelFlipCertificate:
    """Certify predictions by the largest class mean, exactly but for ties.

    The theorem and its proof stand at the head of this module.

    Args:
        similarities: shape (m, n), any float dtype: row x holds k_1, ..., k_n; or an iterable of such chunks.
        labels: shape (n,), integers in [0, K).
        num_classes: K: every class that an adversary may write.

    Raises:
        UserError: labels out of range, similarities of another shape, or not finite.

    Example:
        >>> certify_class_means(torch.tensor([[1.0, 0.9, 0.8, 0.1, 0.0]]), torch.tensor([0, 0, 0, 1, 1]), num_classes=2)
        LabelFlipCertificate(prediction=tensor([0]), radius=tensor([2]))
    """
    num_classes = check_integer("num_classes", num_classes, minimum=1)
    if not len(check_labels("labels", labels, num_classes)):
        raise UserError("labels must hold at least one training label, got none; check the training data")
    points = []
    for chunk in [similarities] if isinstance(similarities, Tensor) else similarities:
        if chunk.ndim != 2 or chunk.shape[1] != len(labels) or not chunk.is_floating_point():
            got = f"shape {tuple(chunk.shape)}, dtype {chunk.dtype}"
            raise UserError(f"similarities must be a float matrix (points, {len(labels)} training labels), got {got}")
        check_finite("similarities", chunk, remedy="clean the inputs or change the feature map")
        if not torch.isfinite(8 * len(labels) * chunk.double().abs()).all():
            raise UserError("similarities must be finite, also when added up, got huge ones; scale them down")
        points += [_certify_point(row, labels.long().numpy(), num_classes) for row in chunk.double().numpy()]
    table = torch.tensor(points, dtype=torch.int64).reshape(-1, 2)
    return LabelFlipCertificate(table[:, 0], table[:, 1])


def _certify_point(similarity: Vector, labels: npt.NDArray[np.int64], num_classes: int) -> tuple[int, int]:
    members = [np.sort(similarity[labels == label]) for label in range(num_classes)]
    means = [float(part.mean()) if len(part) else -math.inf for part in members]
    prediction = int(np.argmax(means))
    fewest = len(labels) + 1
    rivals = [label for label in range(num_classes) if label != prediction and len(members[label])]
    empty = [label for label in range(num_classes) if not len(members[label])][:1]  # one of them stands for all
    for rival in [*sorted(rivals, key=lambda label: -means[label]), *empty]:
        rest = [members[label] for label in range(num_classes) if label not in (prediction, rival)]
        others = np.sort(np.concatenate(rest)) if rest else np.empty(0)
        fewest = min(fewest, _Rivalry(members[prediction], members[rival], others).fewest(fewest))
    return prediction, max(fewest - 1, 0)


@dataclass(frozen=True)
class _Rivalry:
    """Similarities of the points of class c, of class j, and of all others, each sorted from small to large."""

    own: Vector
    rival: Vector
    others: Vector

    def fewest(self, known: int) -> int:
        """The fewest changes that bring the rival level, or ``known`` where they are not fewer."""
        parts = [part for part in (self.own, self.rival, self.others) if len(part)]
        low, high = min(float(part[0]) for part in parts), max(float(part[-1]) for part in parts)
        best = min(known, self.changes(low, low, known), self.changes(high, high, known))
        open_ = [(self.changes(low, high, best), low, high)]
        for _ in range(_SPLITS):
            if not open_ or open_[0][0] >= best:
                return best
            _, low, high = heapq.heappop(open_)
            middle = low / 2 + high / 2
            if not low < middle < high:
                heapq.heappush(open_, (_, low, high))
                break
            best = min(best, self.changes(middle, middle, best))
            for start, end in ((low, middle), (middle, high)):
                bound = self.changes(start, end, best)
                if bound < best:
                    heapq.heappush(open_, (bound, start, end))
        return min(best, open_[0][0]) if open_ else best

    def changes(self, low: float, high: float, most: int) -> int:
        """A lower bound on the changes for every threshold in [low, high], exact for one (up to ``most``)."""
        slack = self._slack(max(abs(low), abs(high)))
        missing_rival = float(np.sum(low - self.rival)) - slack
        missing_own = float(np.sum(self.own - high)) - slack
        given, taken = _largest(self.own - low, most), _largest((high - self.rival)[::-1], most)
        both = _sums(np.sort(np.concatenate([given, taken]))[: -most - 1 : -1])
        up, down = (
            _sums(_largest(self.others - low, most)[::-1]),
            _sums(_largest((high - self.others)[::-1], most)[::-1]),
        )
        to_rival, to_own = _count(up, missing_rival - both), _count(down, missing_own - both)
        count = np.arange(len(both)) + to_rival + to_own
        emptied = len(self.rival)
        if emptied < len(both) and len(taken) == emptied and (not len(given) or not emptied or given[-1] < taken[0]):
            # All points of class j would leave it, and an empty class does not win: one moves in, or one stays.
            moves_in = emptied + max(int(to_rival[emptied]), 1 if len(up) > 1 else _NEVER) + int(to_own[emptied])
            instead = both[emptied : emptied + 1] - (taken[0] if emptied else 0) + (given[-1] if len(given) else 0)
            stays = emptied + int((_count(up, missing_rival - instead) + _count(down, missing_own - instead))[0])
            count[emptied] = min(moves_in, stays) if emptied else moves_in
        return int(count.min())

    def _slack(self, threshold: float) -> float:
        count = len(self.own) + len(self.rival) + len(self.others)
        size = sum(float(np.abs(part).sum()) for part in (self.own, self.rival, self.others))
        numbers = np.finfo(np.float64)
        return 8 * count * float(numbers.eps) * (size + count * threshold) + count * float(numbers.tiny)


def _largest(rising: Vector, most: int) -> Vector:
    """The last ``most`` entries of a rising vector, those of at least 0."""
    kept: Vector = rising[-most:] if most < len(rising) else rising
    return kept[np.searchsorted(kept, 0.0) :]


def _sums(falling: Vector) -> Vector:
    """Sums of the first 0, 1, 2, ... entries."""
    total: Vector = np.concatenate([[0.0], np.cumsum(falling)])
    return total


def _count(sums: Vector, needed: Vector) -> npt.NDArray[np.int64]:
    """How many entries add up to what is needed, 0 where nothing is; a large number where all of them do not."""
    count = np.searchsorted(sums, needed).astype(np.int64)
    return np.where(count < len(sums), count, _NEVER)


# --- centroid ---------------------------------------------------------------------------------------------------------

_REMEDY = "clean the inputs or change the feature map"
_ROWS = 64  # points between two steps of the progress


class MeanSimilarity(CertifiedLearner):
    """The class of the largest mean similarity, with certificates that are exact but for ties.

    With ``CosineKernel`` it is the nearest centroid of unit vectors by inner product. Unlike sums of votes
    (``KernelVotes``) it favours no large class.

    Args:
        features: the feature map; None: that of :class:`CertifiedLearner`.
        kernel: the similarity, fitted to the training inputs alone; None: cosine.

    Example:
        >>> from lightning_poison.certificates.features import RawFeatures
        >>> inputs, labels = torch.eye(2)[[0, 0, 0, 0, 1]], torch.tensor([0, 0, 0, 1, 1])
        >>> MeanSimilarity(RawFeatures()).fit(inputs, labels, num_classes=2).certify(inputs[:1])
        LabelFlipCertificate(prediction=tensor([0]), radius=tensor([0]))
    """

    def __init__(self, features: LabelFreeFeatures | None = None, kernel: Kernel | None = None) -> None:
        super().__init__(features)
        self.similarity = SimilarityToTraining(kernel)

    def _fit(self, features: Tensor) -> None:
        self.similarity.fit(features)

    def certify_features(self, features: Tensor, advance: Advance = lambda _: None) -> LabelFlipCertificate:
        """Certificates of points whose features are known, see :func:`certify_class_means`."""
        self._check_features(features)
        parts = []
        for similarities in self.similarity.chunks(features, _ROWS) if len(features) else ():
            alike = self._own.alike(similarities, dim=1)
            parts.append(certify_class_means(alike, self.labels, self.num_classes))
            advance(len(similarities))
        empty = torch.empty(0, dtype=torch.int64)
        prediction = torch.cat([empty, *(part.prediction for part in parts)])
        return LabelFlipCertificate(prediction, torch.cat([empty, *(part.radius for part in parts)]))

    def describe(self) -> str:
        """The learner in a few words."""
        return f"largest class mean of the {self.similarity.kernel.describe()}"

    def choices(self) -> tuple[str, ...]:
        """The kernel."""
        return ("the kernel",)


class NearestCentroid(CertifiedLearner):
    """The class whose mean is nearest in l2, with certificates that are sound but not exact.

    The radius bounds how far changed labels can move two means, along the lines to the point and in any direction
    (``certificates.centroids``); the true number of changes is mostly larger. With 60,000 training points of 784
    features it takes about 0.02 seconds a point on one core. :class:`MeanSimilarity` and ``KernelVotes`` are close
    relatives with exact certificates.

    Args:
        features: the feature map; None: that of :class:`CertifiedLearner`.

    Example:
        >>> from lightning_poison.certificates.features import RawFeatures
        >>> inputs, labels = torch.tensor([[0.0], [0.0], [0.0], [1.0], [1.0], [1.0]]), torch.arange(6) // 3
        >>> NearestCentroid(RawFeatures()).fit(inputs, labels, num_classes=2).certify(torch.tensor([[0.1]]))
        LabelFlipCertificate(prediction=tensor([0]), radius=tensor([2]))
    """

    def __init__(self, features: LabelFreeFeatures | None = None) -> None:
        super().__init__(features)
        self._centroids: Centroids

    def _fit(self, features: Tensor) -> None:
        check_finite("features", features, remedy=_REMEDY)
        self._centroids = Centroids(features, self.labels, self.num_classes)

    def certify_features(self, features: Tensor, advance: Advance = lambda _: None) -> LabelFlipCertificate:
        """Certificates of points whose features are known."""
        self._check_features(features)
        if not len(features):
            return LabelFlipCertificate(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
        return self._centroids.certify(check_finite("features", features, remedy=_REMEDY), advance)

    def describe(self) -> str:
        """The learner in a few words."""
        return "nearest class mean (l2, sound but not exact)"
