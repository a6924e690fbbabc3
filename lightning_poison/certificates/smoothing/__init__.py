"""Certificates of classifiers that are smoothed over random label flips."""

from lightning_poison.certificates.smoothing.algorithm1 import SmoothedPrediction, smoothed_predictions
from lightning_poison.certificates.smoothing.smoothed_ridge import SmoothedRidge
from lightning_poison.certificates.smoothing.thresholds import (
    FlipNoise,
    kl_radius,
    kl_thresholds,
    tight_radius,
    tight_thresholds,
)

__all__ = [
    "FlipNoise",
    "SmoothedPrediction",
    "SmoothedRidge",
    "kl_radius",
    "kl_thresholds",
    "smoothed_predictions",
    "tight_radius",
    "tight_thresholds",
]
