"""The undefended baseline beside certified learners: fitted to the same features, attacked on some of the points."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_poison.certificates import UndefendedLogistic
from lightning_poison.certificates.learner import Advance
from lightning_poison.certificates.undefended import AttackedPoints

__all__ = ["AttackedBaseline"]


class AttackedBaseline:
    """Attacks on an undefended learner, on at most so many points, evenly spread.

    Args:
        model: the undefended learner.
        max_points: attack at most so many.
    """

    def __init__(self, model: UndefendedLogistic, max_points: int) -> None:
        self.model, self.max_points = model, max_points

    def check_size(self, num_classes: int) -> None:
        """Refuse more than two classes."""
        self.model.check_classes(num_classes)

    def fit(self, features: Tensor, labels: Tensor, num_classes: int) -> None:
        """Fit to the training points: features (n, d) and labels (n,)."""
        self.model.fit_features(features, labels, num_classes)

    def attack(self, features: Tensor, index: Tensor, labels: Tensor, advance: Advance) -> AttackedPoints:
        """Attack some of the points.

        Args:
            features: shape (m, d): of all of them.
            index: shape (m,), int64: positions in the data set.
            labels: shape (m,), int64: clean labels.
            advance: called with the number of points done or left out.
        """
        stride = -(-len(features) // self.max_points) if len(features) else 1
        chosen = torch.arange(0, len(features), stride)
        advance(len(features) - len(chosen))
        return AttackedPoints(index[chosen], labels[chosen], self.model.attack(features[chosen], advance))
