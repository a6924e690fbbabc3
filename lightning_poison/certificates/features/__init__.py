"""Feature maps that see no label."""

from lightning_poison.certificates.features.base import LabelFreeFeatures
from lightning_poison.certificates.features.frozen import FrozenFeatures
from lightning_poison.certificates.features.hog import HOGFeatures
from lightning_poison.certificates.features.pca import PCAFeatures
from lightning_poison.certificates.features.random_conv import RandomConvFeatures
from lightning_poison.certificates.features.random_fourier import RandomFourierFeatures
from lightning_poison.certificates.features.raw import RawFeatures
from lightning_poison.certificates.features.spectral import SpectralFeatures
from lightning_poison.certificates.features.unchanged import UnchangedInputs

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
