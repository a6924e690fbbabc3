"""Principal components of the training inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_poison.certificates.features.base import Batches, LabelFreeFeatures, as_batches
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer
from lightning_poison.functional.scale import unit_of

__all__ = ["PCAFeatures"]


class PCAFeatures(LabelFreeFeatures):
    """The ``dim`` leading principal components of the training inputs, after centring.

    The covariance is summed in float64 batch by batch, so memory is d x d and does not grow with the number of points.

    Args:
        dim: number of components; at most min(n, d) are kept.

    Example:
        >>> line = torch.arange(4.0)[:, None] * torch.tensor([[1.0, 0.0]])
        >>> PCAFeatures(dim=1).fit(line).transform(line).abs().flatten().tolist()
        [1.5, 0.5, 0.5, 1.5]
    """

    def __init__(self, dim: int = 64) -> None:
        self.dim = check_integer("dim", dim, minimum=1)
        self._unit = 1.0
        self._mean: Tensor | None = None
        self._basis: Tensor | None = None

    def fit(self, inputs: Batches) -> PCAFeatures:
        """Find mean and components."""
        shift, count, total, second = None, 0, torch.zeros(()), torch.zeros(())
        for batch in as_batches(inputs):
            rows = check_finite("inputs", batch, remedy="clean them").flatten(1).double()
            self._unit = unit_of(rows, ordinary=0) if shift is None else self._unit
            rows = rows * self._unit
            shift = rows.mean(0) if shift is None else shift  # sums of squares around an early mean cancel less
            rows = rows - shift
            count, total, second = count + len(rows), total + rows.sum(0), second + rows.T @ rows
        mean = total / count
        covariance = second / count - torch.outer(mean, mean)
        if not torch.isfinite(covariance).all():
            raise UserError("inputs must be of similar sizes, got some whose squares overflow; scale them down")
        self._mean = mean if shift is None else mean + shift
        self._basis = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, : min(self.dim, count)]
        return self

    def transform(self, inputs: Tensor) -> Tensor:
        """Project (N, ...) to (N, dim), float64."""
        if self._mean is None or self._basis is None:
            raise UserError("PCAFeatures must be fitted before transform, got no components; call fit(inputs) first")
        return ((inputs.flatten(1).double() * self._unit - self._mean) @ self._basis) / self._unit

    def describe(self) -> str:
        """The map in a few words."""
        return f"{self.dim} principal components of the training inputs"
