"""Votes of the nearest training points, with certificates."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from lightning_poison.certificates.features import LabelFreeFeatures
from lightning_poison.certificates.learners.equal_votes import EqualVotesLearner
from lightning_poison.certificates.learners.kernels import Kernel, SimilarityToTraining
from lightning_poison.functional.checks import check_finite, check_integer

__all__ = ["NearestNeighbours"]


class NearestNeighbours(EqualVotesLearner):
    """Each of the k most similar training points has a vote, with certificates that are exact up to ties.

    Args:
        features: the feature map; None: that of :class:`CertifiedLearner`.
        neighbours: k; at most all training points are used. The radius is below k / 2, so take about half a class.
        kernel: what similar means; None: cosine. ``RBFKernel`` takes the nearest in l2.

    Example:
        >>> import torch
        >>> from lightning_poison.certificates.features import RawFeatures
        >>> inputs, labels = torch.tensor([[0.1, 1.0], [0.0, 1.0], [0.2, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 0, 1])
        >>> NearestNeighbours(RawFeatures(), neighbours=3).fit(inputs, labels, num_classes=2).certify(inputs[:1])
        LabelFlipCertificate(prediction=tensor([0]), radius=tensor([1]))
    """

    def __init__(
        self, features: LabelFreeFeatures | None = None, neighbours: int = 1000, kernel: Kernel | None = None
    ) -> None:
        super().__init__(features)
        self.neighbours = check_integer("neighbours", neighbours, minimum=1)
        self.similarity = SimilarityToTraining(kernel)

    def _fit(self, features: Tensor) -> None:
        self.similarity.fit(features)

    def weight_chunks(self, features: Tensor) -> Iterator[Tensor]:
        """1 for each of the k most similar training points, the first among equals, else 0; float32."""
        for similarity in self.similarity.chunks(features):
            yield _largest(self._own.alike(similarity, dim=1), min(self.neighbours, self.num_points))

    def vote_chunks(self, features: Tensor) -> Iterator[Tensor]:
        """:meth:`weight_chunks`: of equal training points the first ones vote, those of the lowest labels.

        Changing one of their labels changes at most one label among the first ones, whatever their number: the sorted
        labels before and after differ by one that is taken out and one that is put in.
        """
        if len(features):
            yield from self.weight_chunks(features)

    def describe(self) -> str:
        """The learner in a few words."""
        return f"votes of the {self.neighbours} nearest training points by {self.similarity.kernel.describe()}"

    def choices(self) -> tuple[str, ...]:
        """The number of neighbours and the kernel."""
        return ("the number of neighbours", "the kernel")


def _largest(similarity: Tensor, count: int) -> Tensor:
    """Which ``count`` entries of each row are the largest, the first among equals; 0 or 1, float32."""
    check_finite("similarities", similarity, remedy="clean the inputs or change the feature map")
    threshold = similarity.kthvalue(similarity.shape[1] - count + 1, dim=1, keepdim=True).values
    chosen = (similarity >= threshold).float()
    tied = (chosen.sum(1) > count).nonzero()[:, 0]
    if len(tied):
        rows, level = similarity[tied], threshold[tied]
        above, equal = rows > level, rows == level
        room = count - above.sum(1, keepdim=True)
        chosen[tied] = (above | (equal & (equal.cumsum(1) <= room))).float()
    return chosen
