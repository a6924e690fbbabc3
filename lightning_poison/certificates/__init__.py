"""What can be guaranteed although some training labels are wrong."""

from lightning_poison.certificates.attack import OptimalFlips, optimal_label_flips
from lightning_poison.certificates.certified_points import CertifiedPoints
from lightning_poison.certificates.curve import certified_accuracy, default_radii
from lightning_poison.certificates.features import (
    FrozenFeatures,
    LabelFreeFeatures,
    PCAFeatures,
    RandomConvFeatures,
    RawFeatures,
)
from lightning_poison.certificates.guarantee import guarantee
from lightning_poison.certificates.label_linear import LabelFlipCertificate, certify_label_linear
from lightning_poison.certificates.learner import CertifiedLearner
from lightning_poison.certificates.learners import CertifiedRidge, LabelLinearLearner
from lightning_poison.certificates.section import certification_section

__all__ = [
    "CertifiedLearner",
    "CertifiedPoints",
    "CertifiedRidge",
    "FrozenFeatures",
    "LabelFlipCertificate",
    "LabelFreeFeatures",
    "LabelLinearLearner",
    "OptimalFlips",
    "PCAFeatures",
    "RandomConvFeatures",
    "RawFeatures",
    "certification_section",
    "certified_accuracy",
    "certify_label_linear",
    "default_radii",
    "guarantee",
    "optimal_label_flips",
]
