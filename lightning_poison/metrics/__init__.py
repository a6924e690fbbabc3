"""Torchmetrics with states that merge over ranks."""

from lightning_poison.metrics.certified_accuracy import CertifiedAccuracy
from lightning_poison.metrics.share import Share

__all__ = ["CertifiedAccuracy", "Share"]
