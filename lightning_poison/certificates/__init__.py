"""What can be guaranteed although some training labels are wrong."""

from lightning_poison.certificates.certified_points import CertifiedPoints, certified_accuracy, radius_ceiling
from lightning_poison.certificates.collective import certify_together
from lightning_poison.certificates.features import (
    FrozenFeatures,
    HOGFeatures,
    LabelFreeFeatures,
    PCAFeatures,
    RandomConvFeatures,
    RandomFourierFeatures,
    RawFeatures,
    SpectralFeatures,
    UnchangedInputs,
)
from lightning_poison.certificates.input_smoothing import InputSmoothing
from lightning_poison.certificates.label_linear import LabelFlipCertificate, certify_label_linear, optimal_label_flips
from lightning_poison.certificates.learner import CertifiedLearner
from lightning_poison.certificates.learners import (
    CertifiedRidge,
    ClusterVotes,
    CosineKernel,
    KernelRidge,
    KernelSigns,
    KernelVotes,
    KMeansClusters,
    LabelLinearLearner,
    MeanSimilarity,
    NearestCentroid,
    NearestNeighbours,
    RBFKernel,
    SignedVotes,
    SpectralClusters,
    TangentKernel,
)
from lightning_poison.certificates.learners.class_means import certify_class_means
from lightning_poison.certificates.learners.linear import certify_equal_votes
from lightning_poison.certificates.partitions import PartitionAggregation
from lightning_poison.certificates.retraining import (
    LearnerTraining,
    MonteCarloSmoothing,
    SklearnTraining,
    TrainingProcedure,
)
from lightning_poison.certificates.smoothing import SmoothedRidge, smoothed_predictions
from lightning_poison.certificates.undefended import FlipAttacks, UndefendedLogistic

__all__ = [
    "CertifiedLearner",
    "CertifiedPoints",
    "CertifiedRidge",
    "ClusterVotes",
    "CosineKernel",
    "FlipAttacks",
    "FrozenFeatures",
    "HOGFeatures",
    "InputSmoothing",
    "KMeansClusters",
    "KernelRidge",
    "KernelSigns",
    "KernelVotes",
    "LabelFlipCertificate",
    "LabelFreeFeatures",
    "LabelLinearLearner",
    "LearnerTraining",
    "MeanSimilarity",
    "MonteCarloSmoothing",
    "NearestCentroid",
    "NearestNeighbours",
    "PCAFeatures",
    "PartitionAggregation",
    "RBFKernel",
    "RandomConvFeatures",
    "RandomFourierFeatures",
    "RawFeatures",
    "SignedVotes",
    "SklearnTraining",
    "SmoothedRidge",
    "SpectralClusters",
    "SpectralFeatures",
    "TangentKernel",
    "TrainingProcedure",
    "UnchangedInputs",
    "UndefendedLogistic",
    "certified_accuracy",
    "certify_class_means",
    "certify_equal_votes",
    "certify_label_linear",
    "certify_together",
    "optimal_label_flips",
    "radius_ceiling",
    "smoothed_predictions",
]
