"""What theorems say about how vulnerable memorised label noise and high dimension make a classifier."""

from lightning_poison.certificates.theorems.covering import BallCovering, cover_by_balls
from lightning_poison.certificates.theorems.features import feature_strengths, linear_risk, robust_weights
from lightning_poison.certificates.theorems.memorisation import MemorisationBound, memorisation_bound, samples_needed
from lightning_poison.certificates.theorems.network import lipschitz_estimate, training_margins
from lightning_poison.certificates.theorems.risk_from_data import MemorisedRisk, memorised_risk
from lightning_poison.certificates.theorems.sphere import cap_height, cap_measure, sphere_risk

__all__ = [
    "BallCovering",
    "MemorisationBound",
    "MemorisedRisk",
    "cap_height",
    "cap_measure",
    "cover_by_balls",
    "feature_strengths",
    "linear_risk",
    "lipschitz_estimate",
    "memorisation_bound",
    "memorised_risk",
    "robust_weights",
    "samples_needed",
    "sphere_risk",
    "training_margins",
]
