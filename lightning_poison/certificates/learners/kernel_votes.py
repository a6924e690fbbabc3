"""Votes weighted by similarity, with certificates."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from lightning_poison.certificates.features import LabelFreeFeatures
from lightning_poison.certificates.learners.kernels import Kernel, SimilarityToTraining
from lightning_poison.certificates.learners.linear import LabelLinearLearner

__all__ = ["KernelVotes"]


class KernelVotes(LabelLinearLearner):
    """Every training point votes for its label, weighted by its similarity to x (Parzen's classifier).

    Heavy points cost radius; ``KernelSigns`` keeps but the signs of such weights, ``SignedVotes`` takes the sign from
    clusters instead of a kernel. Certificates are exact.

    Args:
        features: the feature map; None: that of :class:`CertifiedLearner`.
        kernel: the similarity, fitted to the training inputs alone; None: cosine.

    Example:
        >>> import torch
        >>> from lightning_poison.certificates.features import RawFeatures
        >>> inputs, labels = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 1])
        >>> KernelVotes(RawFeatures()).fit(inputs, labels, num_classes=2).certify(inputs)
        LabelFlipCertificate(prediction=tensor([0, 0, 1]), radius=tensor([0, 0, 0]))
    """

    def __init__(self, features: LabelFreeFeatures | None = None, kernel: Kernel | None = None) -> None:
        super().__init__(features)
        self.similarity = SimilarityToTraining(kernel)

    def _fit(self, features: Tensor) -> None:
        self.similarity.fit(features)

    def weight_chunks(self, features: Tensor) -> Iterator[Tensor]:
        """The similarities of the points with all training points."""
        yield from self.similarity.chunks(features)

    def describe(self) -> str:
        """The learner in a few words."""
        return f"votes by {self.similarity.kernel.describe()}"

    def choices(self) -> tuple[str, ...]:
        """The kernel."""
        return ("the kernel",)
