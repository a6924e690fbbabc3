"""Learners that carry certificates against label flips."""

from lightning_poison.certificates.learners.centroid import MeanSimilarity, NearestCentroid
from lightning_poison.certificates.learners.cluster_votes import ClusterVotes
from lightning_poison.certificates.learners.clusters import Clusters, KMeansClusters, SpectralClusters
from lightning_poison.certificates.learners.equal_votes import EqualVotesLearner
from lightning_poison.certificates.learners.kernel_ridge import KernelRidge
from lightning_poison.certificates.learners.kernel_signs import KernelSigns
from lightning_poison.certificates.learners.kernel_votes import KernelVotes
from lightning_poison.certificates.learners.kernels import CosineKernel, Kernel, RBFKernel
from lightning_poison.certificates.learners.linear import LabelLinearLearner
from lightning_poison.certificates.learners.nearest_neighbours import NearestNeighbours
from lightning_poison.certificates.learners.ridge import CertifiedRidge
from lightning_poison.certificates.learners.signed_votes import SignedVotes
from lightning_poison.certificates.learners.tangent_kernel import TangentKernel

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
