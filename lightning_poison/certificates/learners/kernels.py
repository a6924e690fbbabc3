"""Similarities of points that see no label."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_poison.certificates.features.random_fourier import median_distance
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_kind, check_number
from lightning_poison.functional.ridge import rows_per_chunk
from lightning_poison.functional.scale import rescaled

__all__ = ["CosineKernel", "Kernel", "RBFKernel", "SimilarityToTraining"]

_MEDIAN_POINTS = 1000
_REMEDY = "clean the inputs or change the feature map"


class Kernel(ABC):
    """A symmetric positive semi-definite similarity, which learns what it needs from training inputs alone."""

    @abstractmethod
    def fit(self, features: Tensor) -> None:
        """Learn from the training points' features, shape (n, ...)."""

    @abstractmethod
    def matrix(self, points: Tensor, others: Tensor) -> Tensor:
        """Similarities of all pairs.

        Args:
            points: shape (m, ...), any float dtype.
            others: shape (n, ...), alike.

        Returns:
            shape (m, n), float64.
        """

    @abstractmethod
    def describe(self) -> str:
        """The kernel in a few words, such as "cosine kernel"."""


class CosineKernel(Kernel):
    """The cosine of the angle between two points; a point at the origin is like none.

    Args:
        centre: measure angles around the mean of the training points, so that similarities have either sign.

    Example:
        >>> points = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
        >>> CosineKernel().matrix(points, torch.tensor([[1.0, 0.0], [0.0, -2.0]])).tolist()
        [[0.6..., -0.8...], [0.0, 0.0]]
    """

    def __init__(self, centre: bool = False) -> None:
        self.centre = centre
        self._mean: Tensor | None = None

    def fit(self, features: Tensor) -> None:
        """Remember the mean."""
        check_finite("features", features, remedy=_REMEDY)
        self._mean = features.flatten(1).mean(0, dtype=torch.float64) if self.centre else None

    def matrix(self, points: Tensor, others: Tensor) -> Tensor:
        """The cosines."""
        return self._unit(points) @ self._unit(others).T

    def _unit(self, points: Tensor) -> Tensor:
        rows = points.flatten(1).double()
        if self._mean is not None:
            rows = rows - self._mean
        return torch.nn.functional.normalize(rescaled(rows), dim=1)

    def describe(self) -> str:
        """The kernel in a few words."""
        return "centred cosine kernel" if self.centre else "cosine kernel"


class RBFKernel(Kernel):
    r"""The Gaussian kernel :math:`\exp(-\|x - x'\|^2 / (2 b^2))`.

    Args:
        bandwidth: b, a distance between features; None: the median distance between training points (of at most
            1,000, evenly spread), which sees no label.

    Example:
        >>> RBFKernel(bandwidth=1.0).matrix(torch.zeros(1, 2), torch.tensor([[1.0, 1.0]])).exp().tolist()
        [[1.4446...]]
    """

    def __init__(self, bandwidth: float | None = None) -> None:
        if bandwidth is not None and check_number("bandwidth", bandwidth, minimum=0) == 0:
            raise UserError("bandwidth must be larger than 0, got 0; leave it out for the median distance")
        self.bandwidth = bandwidth
        self._fitted_bandwidth = bandwidth

    def fit(self, features: Tensor) -> None:
        """Find the median distance where no bandwidth is given."""
        check_finite("features", features, remedy=_REMEDY)
        if self.bandwidth is None:
            some = features[:: max(len(features) // _MEDIAN_POINTS, 1)].flatten(1).double()
            self._fitted_bandwidth = median_distance(some)

    def matrix(self, points: Tensor, others: Tensor) -> Tensor:
        """The Gaussian of the distances."""
        if self._fitted_bandwidth is None:
            raise UserError("RBFKernel must be fitted before use, got no bandwidth; call fit(features) or give one")
        scale = 2.0 ** (math.frexp(self._fitted_bandwidth)[1] - 1)
        one, two = points.flatten(1).double() / scale, others.flatten(1).double() / scale
        squares = torch.addmm(two.square().sum(1), one, two.T, alpha=-2).add_(one.square().sum(1)[:, None])
        return squares.clamp_(min=0).div_(-2 * (self._fitted_bandwidth / scale) ** 2).exp_()

    def describe(self) -> str:
        """The kernel in a few words."""
        width = "the median distance" if self.bandwidth is None else f"{self.bandwidth:g}"
        return f"RBF kernel (bandwidth {width})"


class SimilarityToTraining:
    """A kernel between points and the training points.

    Args:
        kernel: it is copied, so that several learners may be given one; None: cosine.

    Example:
        >>> similarity = SimilarityToTraining()
        >>> similarity.fit(torch.eye(2))
        >>> [chunk.tolist() for chunk in similarity.chunks(torch.tensor([[2.0, 0.0]]))]
        [[[1.0, 0.0]]]
    """

    def __init__(self, kernel: Kernel | None = None) -> None:
        check_kind("kernel", kernel, Kernel, "CosineKernel()", optional=True)
        self.kernel: Kernel = copy.deepcopy(kernel) if kernel is not None else CosineKernel()
        self._training = torch.empty(0, 0)

    def fit(self, features: Tensor) -> None:
        """Keep the training points' features, shape (n, ...), any float dtype.

        Raises:
            UserError: they are not finite.
        """
        self._training = check_finite("features", features, remedy=_REMEDY)
        self.kernel.fit(features)

    def chunks(self, points: Tensor, rows: int | None = None) -> Iterator[Tensor]:
        """Similarities with all training points, in chunks (m', n), float64, of at most ``rows`` points and 64 MiB.

        Args:
            points: shape (m, ...), like the training points.
            rows: m' at most; None: as many as fit.
        """
        fitting = rows_per_chunk(len(self._training))
        for chunk in torch.split(points, fitting if rows is None else min(rows, fitting)):
            yield self.kernel.matrix(chunk, self._training)
