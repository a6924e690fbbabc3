"""Certificates against changes of the input: a classifier smoothed by Gaussian noise."""

from lightning_poison.certificates.input_smoothing.certificate import InputSmoothingCertificate
from lightning_poison.certificates.input_smoothing.points import SmoothedPoints
from lightning_poison.certificates.input_smoothing.section import smoothing_section
from lightning_poison.certificates.input_smoothing.smoothing import InputSmoothing

__all__ = ["InputSmoothing", "InputSmoothingCertificate", "SmoothedPoints", "smoothing_section"]
