"""Ridge regression on label-free features: a learner whose every prediction carries its certificate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from lightning_poison.certificates.features import LabelFreeFeatures
from lightning_poison.certificates.guarantee import guarantee
from lightning_poison.certificates.label_linear import LabelFlipCertificate, certify_label_linear
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_labels, check_number
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

    Example:
        >>> from lightning_poison.certificates.features import RawFeatures
        >>> inputs, labels = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 1])
        >>> CertifiedRidge(RawFeatures()).fit(inputs, labels, num_classes=2).certify(inputs)
        LabelFlipCertificate(prediction=tensor([0, 0, 1]), radius=tensor([0, 0, 0]))
    """

    def __init__(self, features: LabelFreeFeatures, regularisation: float = 0.3) -> None:
        self.features = features
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
        features = self.transform(inputs, advance)
        if len(features) != len(labels):
            raise UserError(f"inputs must match the labels, got {len(features)} inputs for {len(labels)} labels")
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
            features.append(self.features.transform(batch))
            advance(len(batch))
        return torch.cat(features) if features else torch.empty(0, 0)

    def guarantee(self) -> str:
        """What the certificates promise, in words."""
        return guarantee(self.features, self.regularisation, count=len(self._labels), num_classes=self._num_classes)
