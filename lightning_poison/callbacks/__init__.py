"""What is measured at epoch ends, and what becomes of the measurements."""

from lightning_poison.callbacks.adversarial_accuracy import AdversarialAccuracy
from lightning_poison.callbacks.adversarial_paths import AdversarialPaths
from lightning_poison.callbacks.base import Measurement
from lightning_poison.callbacks.craft_flips import CraftFlips
from lightning_poison.callbacks.epoch_seed import EpochSeed
from lightning_poison.callbacks.flip_labels import FlipLabels
from lightning_poison.callbacks.label_flip_certification import LabelFlipCertification
from lightning_poison.callbacks.line_progress import LineProgress
from lightning_poison.callbacks.poison_memorization import PoisonMemorization
from lightning_poison.callbacks.prediction_writer import PredictionWriter
from lightning_poison.callbacks.report import Report
from lightning_poison.callbacks.smoothing_certification import SmoothingCertification

__all__ = [
    "AdversarialAccuracy",
    "AdversarialPaths",
    "CraftFlips",
    "EpochSeed",
    "FlipLabels",
    "LabelFlipCertification",
    "LineProgress",
    "Measurement",
    "PoisonMemorization",
    "PredictionWriter",
    "Report",
    "SmoothingCertification",
]
