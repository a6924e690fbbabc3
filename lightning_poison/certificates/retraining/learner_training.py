"""Certified learners as training procedures."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.certificates.learner import CertifiedLearner
from lightning_poison.certificates.learners.linear import LabelLinearLearner
from lightning_poison.certificates.retraining.procedure import TrainingProcedure
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_kind

__all__ = ["LearnerTraining"]


class LearnerTraining(TrainingProcedure):
    """Fits copies of a certified learner, its feature map included.

    A fitted copy may hold its training features, so that many trainings on all points take much memory or a cache.

    Args:
        learner: not transductive: each point must be predicted on its own.

    Raises:
        UserError: the learner is transductive.

    Example:
        >>> from lightning_poison.certificates import CertifiedRidge, RawFeatures
        >>> LearnerTraining(CertifiedRidge(RawFeatures())).describe()
        'ridge regression (relative strength 0.05) on raw inputs'
    """

    def __init__(self, learner: CertifiedLearner) -> None:
        check_kind("learner", learner, CertifiedLearner, "CertifiedRidge()")
        if learner.transductive:
            raise UserError(
                f"learner must predict each point on its own, got {type(learner).__name__}, which is transductive; "
                "choose another base learner"
            )
        self.learner = learner
        self.end_to_end = learner.end_to_end
        self.certified = learner.certifies_refits

    def train(self, inputs: Tensor, labels: Tensor, num_classes: int, seed: int) -> CertifiedLearner:  # noqa: ARG002  # learners have seeds of their own
        """A fitted copy."""
        return copy.deepcopy(self.learner).fit(inputs, labels, num_classes)

    def scores(self, model: Any, inputs: Tensor, num_classes: int) -> Tensor:
        """Sums of vote weights where the learner has them, else 1 for the prediction and 0 for the others."""
        if isinstance(model, LabelLinearLearner):
            one_hot = torch.nn.functional.one_hot(model.labels, num_classes).double()
            features = model.transform(inputs)
            return torch.cat([weights.double() @ one_hot for weights in model.vote_chunks(features)])
        return torch.nn.functional.one_hot(model.certify(inputs).prediction, num_classes).double()

    def certify(self, model: Any, inputs: Tensor) -> LabelFlipCertificate:
        """The learner's own certificates."""
        certificate: LabelFlipCertificate = model.certify(inputs)
        return certificate

    def premises(self) -> tuple[str, ...]:
        """Those of the learner."""
        return self.learner.premises()

    def describe(self) -> str:
        """The learner and its features."""
        return f"{self.learner.describe()} on {self.learner.features.describe()}"
