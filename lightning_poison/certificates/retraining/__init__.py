"""Trainings repeated many times: side by side, resumable, and what can be certified from them."""

from lightning_poison.certificates.retraining.engine import TrainedModels, train_all
from lightning_poison.certificates.retraining.learner_training import LearnerTraining
from lightning_poison.certificates.retraining.monte_carlo import MonteCarloSmoothing, certify_counts
from lightning_poison.certificates.retraining.procedure import TrainingProcedure
from lightning_poison.certificates.retraining.retrained_learner import RetrainedLearner
from lightning_poison.certificates.retraining.sklearn_training import SklearnTraining
from lightning_poison.certificates.retraining.training_sets import NoisyLabels, PartsOfData, TrainingSets

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
