"""The undefended baseline in the dress of a certified learner: its points go the same way through a callback."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lightning_poison.certificates import (
    CertifiedLearner,
    CertifiedPoints,
    LabelFlipCertificate,
    LabelFreeFeatures,
    UndefendedLogistic,
)
from lightning_poison.certificates.learner import Advance

__all__ = ["AttackedBaseline", "attacked_points"]


class AttackedBaseline(CertifiedLearner):
    """Attacks on an undefended learner: "radii" are one less than the flips that were found, so upper bounds.

    Points that were not attacked have the prediction -1; :func:`attacked_points` takes them out.

    Args:
        model: the undefended learner.
        features: the map below it.
        max_points: attack at most so many points, evenly spread.
    """

    transductive = True  # so that the same points are attacked on any number of ranks

    def __init__(self, model: UndefendedLogistic, features: LabelFreeFeatures, max_points: int) -> None:
        super().__init__(features)
        self.model, self.max_points = model, max_points

    def check_size(self, num_points: int, num_classes: int) -> None:
        """Refuse more than two classes."""
        self.model.check_classes(num_classes)

    def _fit(self, features: Tensor) -> None:
        self.model.fit_features(features, self.labels, self.num_classes)

    def certify_features(self, features: Tensor, advance: Advance = lambda _: None) -> LabelFlipCertificate:
        """Attack some of the points."""
        prediction = torch.full((len(features),), -1)
        radius = prediction.clone()
        stride = -(-len(features) // self.max_points) if len(features) else 1
        chosen = torch.arange(0, len(features), stride)
        advance(len(features) - len(chosen))  # those are left out
        attacks = self.model.attack(features[chosen], advance)
        prediction[chosen], radius[chosen] = attacks.prediction, attacks.flips - 1
        return LabelFlipCertificate(prediction, radius)

    def describe(self) -> str:
        """The learner in a few words."""
        return "undefended logistic regression"


def attacked_points(points: CertifiedPoints) -> CertifiedPoints:
    """Those of the points that were attacked."""
    kept = points.certificate.prediction >= 0
    certificate = LabelFlipCertificate(points.certificate.prediction[kept], points.certificate.radius[kept])
    return replace(points, index=points.index[kept], labels=points.labels[kept], certificate=certificate)
