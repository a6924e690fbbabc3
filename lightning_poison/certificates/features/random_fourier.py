"""Random Fourier features: ridge regression on them is kernel ridge regression with a Gaussian kernel, nearly."""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

from lightning_poison.certificates.features.base import Batches, LabelFreeFeatures, spread_inputs
from lightning_poison.certificates.features.images import RandomConvFeatures
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, check_kind, check_number
from lightning_poison.functional.random_streams import generator
from lightning_poison.functional.scale import unit_of

__all__ = ["RandomFourierFeatures", "median_distance"]

_FIT_POINTS = 500


class RandomFourierFeatures(LabelFreeFeatures):
    r"""Cosines of random directions, whose inner products approach a Gaussian kernel (Rahimi and Recht, 2007).

    :math:`\phi_j(x) = \sqrt{2 / D} \cos(\omega_j^T x / b + \beta_j)` with normal :math:`\omega_j` and uniform
    :math:`\beta_j`; then :math:`E\, \phi(x)^T \phi(x') = \exp(-\|x - x'\|^2 / (2 b^2))`. Cost and memory grow with
    n x D, where the kernel matrix would need n x n.

    Args:
        features: the map whose outputs are x; None: the default of ``RandomConvFeatures``.
        dim: D.
        bandwidth: b; None: the median distance of 500 to 1,000 training points, evenly spread.
        seed: of the directions.

    Example:
        >>> from lightning_poison.certificates.features import RawFeatures
        >>> points = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
        >>> cosines = RandomFourierFeatures(RawFeatures(), dim=4096, bandwidth=1.0).fit(points).transform(points)
        >>> bool(((cosines @ cosines.T)[0, 1] - torch.tensor(-1.0).exp()).abs() < 0.05)
        True
    """

    def __init__(
        self,
        features: LabelFreeFeatures | None = None,
        dim: int = 1024,
        bandwidth: float | None = None,
        seed: int = 0,
    ) -> None:
        check_kind("features", features, LabelFreeFeatures, "RawFeatures()", optional=True)
        self.features: LabelFreeFeatures = features if features is not None else RandomConvFeatures()
        self.end_to_end = self.features.end_to_end
        self.dim = check_integer("dim", dim, minimum=1)
        if bandwidth is not None and check_number("bandwidth", bandwidth, minimum=0) == 0:
            raise UserError("bandwidth must be larger than 0, got 0; leave it out for the median distance")
        self.bandwidth = bandwidth
        self.seed = seed
        self._directions: Tensor | None = None
        self._shifts: Tensor

    def fit(self, inputs: Batches) -> RandomFourierFeatures:
        """Fit the map below, measure the bandwidth, draw the directions.

        Args:
            inputs: shape (n, ...), or batches of such that can be read twice.
        """
        self.features.fit(inputs)
        some = check_finite("features", self.features.transform(spread_inputs(inputs, _FIT_POINTS))).flatten(1).double()
        bandwidth = self.bandwidth if self.bandwidth is not None else median_distance(some)
        stream = generator(self.seed, "random Fourier features")
        directions = torch.randn(some.shape[1], self.dim, generator=stream, dtype=torch.float64)
        self._directions = directions / bandwidth
        self._shifts = 2 * math.pi * torch.rand(self.dim, generator=stream, dtype=torch.float64)
        return self

    def transform(self, inputs: Tensor) -> Tensor:
        """The cosines of (N, ...): (N, dim), float32."""
        if self._directions is None:
            raise UserError(
                "RandomFourierFeatures must be fitted before transform, got no directions; call fit(inputs) first"
            )
        angles = self.features.transform(inputs).flatten(1).double() @ self._directions + self._shifts
        return angles.cos_().mul_(math.sqrt(2 / self.dim)).float()

    def premises(self) -> tuple[str, ...]:
        """Those of the map below."""
        return self.features.premises()

    def describe(self) -> str:
        """The map in a few words."""
        return f"{self.dim} random Fourier features (seed {self.seed}) of {self.features.describe()}"


def median_distance(points: Tensor) -> float:
    """The median of the positive distances between points (n, d), float64; 1 where there are none."""
    unit = unit_of(points, ordinary=0)
    distances = torch.pdist(points * unit)
    positive = distances[distances > 0]
    return min(float(positive.median()) / unit, sys.float_info.max) if len(positive) else 1.0
