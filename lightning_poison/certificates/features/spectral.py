"""Coordinates along the neighbourhood graph of the training inputs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # torch's own custom

from lightning_poison.certificates.features.base import Batches, LabelFreeFeatures, as_batches
from lightning_poison.certificates.features.images import HOGFeatures
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, check_kind
from lightning_poison.functional.graphs import (
    SpectralEmbedding,
    nearest_neighbours,
    neighbour_weights,
    spectral_embedding,
)
from lightning_poison.functional.scale import in_units, unit_of

__all__ = ["SpectralFeatures", "SpectralMap"]


class SpectralMap:
    """A spectral embedding of points that is extended to new points; rows have unit length.

    Args:
        dim: number of leading eigenvectors.
        neighbours: number of nearest points that each point is joined to.
        seed: of the vector that the eigenvector iteration starts from.
    """

    def __init__(self, dim: int, neighbours: int, seed: int) -> None:
        self.dim = check_integer("dim", dim, minimum=1)
        self.neighbours = check_integer("neighbours", neighbours, minimum=1)
        self.seed = check_integer("seed", seed, minimum=0)
        self._unit = 1.0
        self._points: Tensor | None = None
        self._embedding: SpectralEmbedding

    def fit(self, points: Tensor) -> Tensor:
        """Embed points (n, d) along their own graph: (n, dim), float64."""
        self._unit = unit_of(check_finite("inputs", points, remedy="clean them"), ordinary=0)
        points = in_units(points, self._unit).float()
        self._embedding = spectral_embedding(points, self.dim, self.neighbours, self.seed)
        self._points = points
        return F.normalize(self._embedding.coordinates)

    def extend(self, points: Tensor) -> Tensor:
        """Place new points (m, d) among the fitted ones, which stay where they are: (m, dim), float64."""
        if self._points is None:
            raise UserError("a spectral map must be fitted before it is extended, got no points; call fit first")
        count = min(self.neighbours, len(self._points))
        distances, index = nearest_neighbours(self._points, count, in_units(points, self._unit).float())
        return F.normalize(self._embedding.extended(neighbour_weights(distances), index))


class SpectralFeatures(LabelFreeFeatures):
    """Leading eigenvectors of the training points' neighbourhood graph, rows of unit length.

    Points that a chain of near neighbours joins come to lie together, whatever the shape of the chain. New points are
    placed by their neighbours among the training points (Nystroem), so no evaluation input moves the map. All training
    features are kept. See :func:`lightning_poison.functional.graphs.spectral_embedding`.

    Args:
        features: in whose distances points are neighbours; None: ``HOGFeatures()``, which needs images.
        dim: number of eigenvectors.
        neighbours: number of nearest points that each point is joined to.
        seed: of the vector that the eigenvector iteration starts from.

    Example:
        >>> from lightning_poison.certificates.features import RawFeatures
        >>> points = torch.tensor([[0.0], [1.0], [2.0], [100.0], [101.0], [102.0]])
        >>> embedded = SpectralFeatures(RawFeatures(), dim=2, neighbours=2).fit(points).transform(points)
        >>> embedded.norm(dim=1).round(decimals=6).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """

    def __init__(
        self, features: LabelFreeFeatures | None = None, dim: int = 10, neighbours: int = 10, seed: int = 0
    ) -> None:
        check_kind("features", features, LabelFreeFeatures, "RawFeatures()", optional=True)
        self.features: LabelFreeFeatures = features if features is not None else HOGFeatures()
        self._map = SpectralMap(dim, neighbours, seed)
        self.end_to_end = self.features.end_to_end

    def fit(self, inputs: Batches) -> SpectralFeatures:
        """Embed the training points."""
        kept = list(as_batches(inputs))
        self.features.fit(iter(kept))
        points = torch.cat([self.features.transform(batch) for batch in kept])
        self._map.fit(check_finite("features", points, remedy="clean the inputs or change the feature map"))
        return self

    def transform(self, inputs: Tensor) -> Tensor:
        """Place (N, ...) among the training points: (N, dim), float64."""
        return self._map.extend(self.features.transform(inputs))

    def premises(self) -> tuple[str, ...]:
        """Those of the map below."""
        return self.features.premises()

    def describe(self) -> str:
        """The map in a few words."""
        graph = f"{self._map.dim} eigenvectors of the {self._map.neighbours}-nearest-neighbour graph"
        return f"{graph} on {self.features.describe()}"
