"""Learners that carry certificates against label flips."""

from lightning_poison.certificates.learners.class_means import MeanSimilarity, NearestCentroid
from lightning_poison.certificates.learners.cluster_votes import ClusterVotes, SignedVotes
from lightning_poison.certificates.learners.clusters import Clusters, KMeansClusters, SpectralClusters
from lightning_poison.certificates.learners.kernel_learners import KernelRidge, KernelSigns, KernelVotes
from lightning_poison.certificates.learners.kernels import CosineKernel, Kernel, RBFKernel, TangentKernel
from lightning_poison.certificates.learners.linear import (
    CertifiedRidge,
    EqualVotesLearner,
    LabelLinearLearner,
    NearestNeighbours,
)

__all__ = [
    "CertifiedRidge",
    "ClusterVotes",
    "Clusters",
    "CosineKernel",
    "EqualVotesLearner",
    "KMeansClusters",
    "Kernel",
    "KernelRidge",
    "KernelSigns",
    "KernelVotes",
    "LabelLinearLearner",
    "MeanSimilarity",
    "NearestCentroid",
    "NearestNeighbours",
    "RBFKernel",
    "SignedVotes",
    "SpectralClusters",
    "TangentKernel",
]
