"""Ridge regression on label-free features: a learner whose every prediction carries its certificate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from lightning_poison.certificates.features import LabelFreeFeatures
from lightning_poison.certificates.guarantee import guarantee
from lightning_poison.certificates.label_linear import LabelFlipCertificate, certify_label_linear
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, check_labels, check_number
from lightning_poison.functional.ridge import Ridge

__all__ = ["CertifiedRidge"]

_BATCH = 1000


class CertifiedRidge:
    """Ridge regression of one-hot labels on label-free features, with exact label-flip certificates.

    Args:
        features: the feature map; it is fitted here, to the training inputs alone.
        regularisation: strength of the ridge, relative to the mean eigenvalue of the features' second moments, so
            that one value suits any data. More of it gives larger radii and, in time, fewer right predictions. Choose
            it without the labels that are certified.
        max_dim: keep at most so many leading directions of the training features (eigenvectors of their second
            moments, which see no label); the rest, which the ridge all but ignores, only costs time.

    Example:
        >>> from lightning_poison.certificates.features import RawFeatures
        >>> inputs, labels = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 1])
        >>> CertifiedRidge(RawFeatures()).fit(inputs, labels, num_classes=2).certify(inputs)
        LabelFlipCertificate(prediction=tensor([0, 0, 1]), radius=tensor([0, 0, 0]))
    """

    def __init__(self, features: LabelFreeFeatures, regularisation: float = 0.05, max_dim: int = 256) -> None:
        self.features = features
        self.max_dim = check_integer("max_dim", max_dim, minimum=1)
        self._directions: Tensor | None = None
        self.regularisation = check_number("regularisation", regularisation, minimum=0)
        self._ridge: Ridge | None = None
        self._labels = torch.empty(0, dtype=torch.int64)
        self._num_classes = 0

    @property
    def num_points(self) -> int:
        """Number of training points, n."""
        return len(self._labels)

    def fit(
        self,
        inputs: Tensor | Iterable[Tensor],
        labels: Tensor,
        num_classes: int,
        advance: Callable[[int], object] = lambda _: None,
    ) -> CertifiedRidge:
        """Fit the feature map and factorise the ridge problem; labels only become votes.

        Args:
            inputs: shape (n, ...), or an iterable of batches that can be read twice.
            labels: shape (n,), integers in [0, K): the training labels as they are, flips included.
            num_classes: K: every class that an adversary may write.
            advance: called with the number of points turned into features, batch by batch.

        Returns:
            the learner itself.

        Raises:
            UserError: inputs and labels do not match, or hold values that no certificate can be built on.
        """
        self._labels, self._num_classes = check_labels("labels", labels, num_classes).long(), num_classes
        self.features.fit(inputs)
        self._directions = None
        features = self.transform(inputs, advance)
        if len(features) != len(labels):
            raise UserError(f"inputs must match the labels, got {len(features)} inputs for {len(labels)} labels")
        if features.shape[1] > self.max_dim:
            self._directions = _leading_directions(features, self.max_dim)
            features = _projected(features, self._directions)
        self._ridge = Ridge(features, self.regularisation)
        return self

    def certify(self, inputs: Tensor | Iterable[Tensor]) -> LabelFlipCertificate:
        """Predictions and certified radii of points.

        Args:
            inputs: shape (m, ...), or batches of such.

        Raises:
            UserError: the learner is not fitted, or the features are not finite.
        """
        return self.certify_features(self.transform(inputs))

    def certify_features(
        self, features: Tensor, advance: Callable[[int], object] = lambda _: None
    ) -> LabelFlipCertificate:
        """:meth:`certify` for points whose features, shape (m, d), are known.

        Args:
            features: as :meth:`transform` gives them.
            advance: called with the number of points certified, chunk by chunk.
        """
        if self._ridge is None:
            raise UserError("CertifiedRidge must be fitted before certify, got no training points; call fit first")
        ridge = self._ridge

        def chunks() -> Iterator[Tensor]:
            for weights in ridge.weight_chunks(features):
                yield weights
                advance(len(weights))

        return certify_label_linear(chunks() if len(features) else (), self._labels, self._num_classes)

    def transform(self, inputs: Tensor | Iterable[Tensor], advance: Callable[[int], object] = lambda _: None) -> Tensor:
        """Features of points.

        Args:
            inputs: shape (m, ...), or batches of such.
            advance: called with the number of points done, batch by batch.

        Returns:
            shape (m, d), float.
        """
        features = []
        for batch in torch.split(inputs, _BATCH) if isinstance(inputs, Tensor) else inputs:
            found = self.features.transform(batch)
            features.append(found if self._directions is None else _projected(found, self._directions))
            advance(len(batch))
        return torch.cat(features) if features else torch.empty(0, 0)

    def guarantee(self) -> str:
        """What the certificates promise, in words."""
        return guarantee(
            self.features,
            self.regularisation,
            count=len(self._labels),
            num_classes=self._num_classes,
            directions=None if self._directions is None else self._directions.shape[1],
        )

    def note(self) -> str:
        """What the certificates promise in the few words that fit beside a number."""
        return f"{self.features.reach}; ridge on {self.features.describe()}, not the victim"


def _leading_directions(features: Tensor, count: int) -> Tensor:
    """The ``count`` leading eigenvectors of X^T X as columns (d, count), float64."""
    check_finite("features", features, remedy="clean the inputs or change the feature map")
    moments = sum((part.T @ part for part in map(Tensor.double, torch.split(features, _BATCH))), torch.zeros(()))
    directions: Tensor = torch.linalg.eigh(moments).eigenvectors[:, -count:]
    return directions


def _projected(features: Tensor, directions: Tensor) -> Tensor:
    """Coordinates along ``directions``, float64, without a float64 copy of all features at once."""
    return torch.cat([part.double() @ directions for part in torch.split(features, _BATCH)])
