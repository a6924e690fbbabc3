r"""Where the weights of points come from, and the smoothed margins that they make.

A :class:`Votes` holds the weights :math:`\alpha_i(x)` of some points over the training points. It gives sums over each
class, from which predictions follow, and the margins of one class over another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightning_poison.certificates.smoothing.dense import Margins
from lightning_poison.certificates.smoothing.margins import LabelNoise, Segment

__all__ = ["Pair", "Votes"]


@dataclass(frozen=True)
class Pair:
    """The margin of ``winner`` over ``rival``, and what smoothing does to labels of the two and to others.

    Args:
        winner: class c.
        rival: class j.
        own: the noise of labels c and j.
        others: the noise of the rest.
    """

    winner: int
    rival: int
    own: LabelNoise
    others: LabelNoise


@dataclass(frozen=True)
class Votes:
    """Weights of m points over n training points.

    Args:
        weights: shape (m, n), float64, the columns in the order of their classes.
        counts: how many columns each of the K classes has.
    """

    weights: Tensor
    counts: Sequence[int]

    @property
    def num_points(self) -> int:
        """Number of training points, n."""
        return self.weights.shape[1]

    def class_sums(self) -> Tensor:
        """Sums of the weights of each class, shape (m, K), float64."""
        return self._sums

    def size(self) -> Tensor:
        """At least the sum of |alpha_i|, up to rounding, shape (m,), float64."""
        return self._size

    @cached_property
    def _sums(self) -> Tensor:
        return torch.stack([part.sum(1) for part in torch.split(self.weights, list(self.counts), dim=1)], dim=1)

    @cached_property
    def _size(self) -> Tensor:
        return self.num_points * self._peak

    @cached_property
    def _peak(self) -> Tensor:
        if self.num_points == 0:
            return self.weights.new_zeros(len(self.weights))
        return torch.maximum(self.weights.amax(1), -self.weights.amin(1))

    def margins(self, pair: Pair, rows: Tensor, offset: Tensor, offset_error: Tensor) -> Margins:
        """Margins of some of the points.

        Args:
            pair: of which class over which.
            rows: shape (m',), int64: which points.
            offset: b, shape (m',).
            offset_error: how far rounding may have moved b, shape (m',).
        """
        every = len(rows) == len(self.weights)
        weights, sums, size, peak = (
            part if every else part[rows] for part in (self.weights, self._sums, self._size, self._peak)
        )
        segments = _segments(self.counts, pair)
        total = sums.sum(1) - 2 * sums[:, pair.rival]
        return Margins(weights, segments, size, peak, total, offset, offset_error)


def _segments(counts: Sequence[int], pair: Pair) -> list[Segment]:
    segments: list[Segment] = []
    start = 0
    for label, count in enumerate(counts):
        noise = pair.own if label in (pair.winner, pair.rival) else pair.others
        sign = -1 if label == pair.rival else 1
        if segments and (segments[-1].sign, segments[-1].noise) == (sign, noise):
            segments[-1] = Segment(segments[-1].start, start + count, sign, noise)
        elif count:
            segments.append(Segment(start, start + count, sign, noise))
        start += count
    return segments
