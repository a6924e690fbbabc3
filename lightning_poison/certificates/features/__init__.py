"""Feature maps that see no label."""

from lightning_poison.certificates.features.base import (
    FrozenFeatures,
    LabelFreeFeatures,
    PCAFeatures,
    RawFeatures,
    UnchangedInputs,
)
from lightning_poison.certificates.features.images import HOGFeatures, RandomConvFeatures
from lightning_poison.certificates.features.random_fourier import RandomFourierFeatures
from lightning_poison.certificates.features.spectral import SpectralFeatures

__all__ = [
    "FrozenFeatures",
    "HOGFeatures",
    "LabelFreeFeatures",
    "PCAFeatures",
    "RandomConvFeatures",
    "RandomFourierFeatures",
    "RawFeatures",
    "SpectralFeatures",
    "UnchangedInputs",
]
