"""Groups of points that are formed without labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from lightning_poison.certificates.features.spectral import SpectralMap
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer
from lightning_poison.functional.random_streams import mix_seed
from lightning_poison.functional.scale import unit_of

__all__ = ["Clusters", "KMeansClusters", "SpectralClusters"]

_RESTARTS = 10


class Clusters(ABC):
    """A way to divide points into groups by their features alone.

    Args:
        clusters: number of groups.
    """

    def __init__(self, clusters: int) -> None:
        self.clusters = check_integer("clusters", clusters, minimum=1)

    @abstractmethod
    def fit(self, features: Tensor) -> Tensor:
        """Divide points.

        Args:
            features: shape (n, d), float.

        Returns:
            shape (n,), int64, in [0, clusters).

        Raises:
            UserError: there are fewer points than clusters, or features are not finite.
        """

    @abstractmethod
    def assign(self, features: Tensor) -> Tensor:
        """The groups of new points; those found by ``fit`` stay as they are.

        Args:
            features: shape (m, d), float; m may be 0.

        Returns:
            shape (m,), int64.
        """

    @abstractmethod
    def describe(self) -> str:
        """The groups in a few words: "10 spectral clusters"."""

    def choices(self) -> tuple[str, ...]:
        """What had to be fixed without the certified labels."""
        return ("the number of clusters",)


class KMeansClusters(Clusters):
    """Groups around centres, by k-means on the features (scikit-learn's, the best of 10 starts).

    Args:
        clusters: number of groups.
        seed: of the starts.

    Example:
        >>> clusters = KMeansClusters(2)
        >>> groups = clusters.fit(torch.tensor([[0.0], [1.0], [9.0]]))
        >>> bool(groups[0] == groups[1] != groups[2]), bool(clusters.assign(torch.tensor([[8.0]]))[0] == groups[2])
        (True, True)
    """

    def __init__(self, clusters: int = 10, seed: int = 0) -> None:
        super().__init__(clusters)
        self.seed = check_integer("seed", seed, minimum=0)
        self._means: Any = None
        self._unit = 1.0

    def fit(self, features: Tensor) -> Tensor:
        """Find the centres."""
        from sklearn.cluster import KMeans

        check_finite("features", features, remedy="clean the inputs or change the feature map")
        if len(features) < self.clusters:
            raise UserError(
                f"clusters must be at most the number of points, got {self.clusters} for {len(features)}; lower it"
            )
        means = KMeans(self.clusters, n_init=_RESTARTS, random_state=mix_seed(self.seed, "k-means") % 2**32)
        self._unit = unit_of(features)
        self._means = means.fit((features.double() * self._unit).numpy())
        return torch.from_numpy(self._means.labels_).long()

    def assign(self, features: Tensor) -> Tensor:
        """The nearest centres."""
        if self._means is None:
            raise UserError("clusters must be fitted before points are assigned, got no centres; call fit first")
        if not len(features):
            return torch.empty(0, dtype=torch.int64)
        points = check_finite(
            "features", features.double() * self._unit, remedy="clean the inputs or change the feature map"
        )
        return torch.from_numpy(self._means.predict(points.numpy())).long()

    def describe(self) -> str:
        """The groups in a few words."""
        return f"{self.clusters} k-means clusters (seed {self.seed})"


class SpectralClusters(Clusters):
    """Groups that few edges of the neighbourhood graph join: k-means on its leading eigenvectors.

    One eigenvector for each cluster, rows of unit length (Ng, Jordan and Weiss, 2002). Time is spent on the neighbours:
    n^2 d operations, half a minute for 70,000 points in 128 dimensions on one core.

    Args:
        clusters: number of groups, and of eigenvectors.
        neighbours: number of nearest points that each point is joined to.
        seed: of the iteration and the starts.

    Example:
        >>> angle = torch.arange(40) * torch.pi / 20
        >>> ring = torch.stack([angle.cos(), angle.sin()], dim=1)
        >>> groups = SpectralClusters(2, neighbours=2).fit(torch.cat([ring, 3 * ring]))
        >>> groups[:40].unique().numel(), groups[40:].unique().numel(), groups.unique().numel()
        (1, 1, 2)
    """

    def __init__(self, clusters: int = 10, neighbours: int = 10, seed: int = 0) -> None:
        super().__init__(clusters)
        self._map = SpectralMap(clusters, neighbours, seed)
        self._groups = KMeansClusters(clusters, seed)

    def fit(self, features: Tensor) -> Tensor:
        """Embed the points, then find the centres."""
        return self._groups.fit(self._map.fit(features))

    def assign(self, features: Tensor) -> Tensor:
        """Place new points by their neighbours, then take the nearest centres."""
        return self._groups.assign(self._map.extend(features))

    def describe(self) -> str:
        """The groups in a few words."""
        return f"{self.clusters} spectral clusters ({self._map.neighbours} neighbours, seed {self._map.seed})"

    def choices(self) -> tuple[str, ...]:
        """What had to be fixed without the certified labels."""
        return (*super().choices(), "the number of neighbours")
