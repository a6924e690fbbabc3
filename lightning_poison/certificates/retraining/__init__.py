"""Trainings repeated many times: side by side, resumable, and what can be certified from them."""

from lightning_poison.certificates.retraining.engine import (
    NoisyLabels,
    PartsOfData,
    TrainedModels,
    TrainingSets,
    train_all,
)
from lightning_poison.certificates.retraining.monte_carlo import MonteCarloSmoothing, RetrainedLearner, certify_counts
from lightning_poison.certificates.retraining.procedure import LearnerTraining, SklearnTraining, TrainingProcedure

__all__ = [
    "LearnerTraining",
    "MonteCarloSmoothing",
    "NoisyLabels",
    "PartsOfData",
    "RetrainedLearner",
    "SklearnTraining",
    "TrainedModels",
    "TrainingProcedure",
    "TrainingSets",
    "certify_counts",
    "train_all",
]
