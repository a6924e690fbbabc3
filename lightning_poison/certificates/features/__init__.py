"""Feature maps that see no label."""

from lightning_poison.certificates.features.base import LabelFreeFeatures
from lightning_poison.certificates.features.frozen import FrozenFeatures
from lightning_poison.certificates.features.pca import PCAFeatures
from lightning_poison.certificates.features.random_conv import RandomConvFeatures
from lightning_poison.certificates.features.raw import RawFeatures

__all__ = ["FrozenFeatures", "LabelFreeFeatures", "PCAFeatures", "RandomConvFeatures", "RawFeatures"]
