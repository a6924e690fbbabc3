"""What theorems say about how vulnerable memorised label noise and high dimension make a classifier."""

from lightning_poison.theory.covering import BallCovering, cap_height, cap_measure, cover_by_balls, sphere_risk
from lightning_poison.theory.memorisation import (
    MemorisationBound,
    MemorisedRisk,
    memorisation_bound,
    memorised_risk,
    samples_needed,
)
from lightning_poison.theory.network import (
    feature_strengths,
    linear_risk,
    lipschitz_estimate,
    robust_weights,
    training_margins,
)

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
