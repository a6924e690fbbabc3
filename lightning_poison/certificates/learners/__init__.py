"""Learners that carry certificates against label flips."""

from lightning_poison.certificates.learners.linear import LabelLinearLearner
from lightning_poison.certificates.learners.ridge import CertifiedRidge

__all__ = ["CertifiedRidge", "LabelLinearLearner"]
