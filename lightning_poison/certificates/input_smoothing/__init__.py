"""Certificates against changes of the input: a classifier smoothed by Gaussian noise."""

from lightning_poison.certificates.input_smoothing.section import SmoothedPoints, smoothing_section
from lightning_poison.certificates.input_smoothing.smoothing import InputSmoothing, InputSmoothingCertificate

__all__ = ["InputSmoothing", "InputSmoothingCertificate", "SmoothedPoints", "smoothing_section"]
