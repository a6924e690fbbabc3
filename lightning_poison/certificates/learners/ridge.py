"""Ridge regression on label-free features: a learner whose every prediction carries its certificate."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_poison.certificates.features import LabelFreeFeatures
from lightning_poison.certificates.learners.linear import LabelLinearLearner
from lightning_poison.functional.checks import check_finite, check_integer, check_number
from lightning_poison.functional.ridge import Ridge
from lightning_poison.functional.scale import unit_of

__all__ = ["CertifiedRidge"]

_BATCH = 1000


class CertifiedRidge(LabelLinearLearner):
    """Ridge regression of one-hot labels on label-free features, with exact label-flip certificates.

    Args:
        features: the feature map; None: that of :class:`CertifiedLearner`.
        regularisation: strength of the ridge, relative to the mean eigenvalue of the features' second moments, so
            that one value suits any data. More of it gives larger radii and, in time, fewer right predictions. Choose
            it without the labels that are certified.
        max_dim: keep at most so many leading directions of the training features (eigenvectors of their second
            moments, which see no label); the rest, which the ridge all but ignores, only costs time.
        intercept: add a constant feature, see :class:`Ridge`. Without it weights are similarities around the origin.

    Example:
        >>> from lightning_poison.certificates.features import RawFeatures
        >>> inputs, labels = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 1])
        >>> CertifiedRidge(RawFeatures()).fit(inputs, labels, num_classes=2).certify(inputs)
        LabelFlipCertificate(prediction=tensor([0, 0, 1]), radius=tensor([0, 0, 0]))
    """

    def __init__(
        self,
        features: LabelFreeFeatures | None = None,
        regularisation: float = 0.05,
        max_dim: int = 256,
        intercept: bool = True,
    ) -> None:
        super().__init__(features)
        self.max_dim = check_integer("max_dim", max_dim, minimum=1)
        self.regularisation = check_number("regularisation", regularisation, minimum=0)
        self.intercept = intercept
        self._directions: Tensor | None = None
        self._ridge: Ridge  # there is none before fit

    def _fit(self, features: Tensor) -> None:
        self._directions = _leading_directions(features, self.max_dim) if features.shape[1] > self.max_dim else None
        self._ridge = Ridge(self._projected(features), self.regularisation, intercept=self.intercept)

    def weight_chunks(self, features: Tensor) -> Iterator[Tensor]:
        """The rows of :class:`Ridge`'s weights."""
        yield from self._ridge.weight_chunks(self._projected(features))

    def _projected(self, features: Tensor) -> Tensor:
        """Coordinates along the leading directions, float64, without a float64 copy of all features at once."""
        if self._directions is None:
            return features
        return torch.cat([part.double() @ self._directions for part in torch.split(features, _BATCH)])

    def describe(self) -> str:
        """The learner in a few words."""
        kept = "" if self._directions is None else f" along {self._directions.shape[1]} leading directions"
        return f"ridge regression (relative strength {self.regularisation:g}){kept}"

    def choices(self) -> tuple[str, ...]:
        """The strength, and the number of directions where it matters."""
        return ("the strength",) if self._directions is None else ("the strength", "the number of directions")


def _leading_directions(features: Tensor, count: int) -> Tensor:
    """The ``count`` leading eigenvectors of X^T X as columns (d, count), float64."""
    check_finite("features", features, remedy="clean the inputs or change the feature map")
    unit = unit_of(features)
    parts = (part.double() * unit for part in torch.split(features, _BATCH))
    moments = sum((part.T @ part for part in parts), torch.zeros(()))
    directions: Tensor = torch.linalg.eigh(moments).eigenvectors[:, -count:]
    return directions
