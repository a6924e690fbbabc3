"""Votes by clusters: of the training points in a point's cluster, or of all, for its classes and against the others."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.certificates.features import LabelFreeFeatures
from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.certificates.learner import Advance
from lightning_poison.certificates.learners.clusters import Clusters, SpectralClusters
from lightning_poison.certificates.learners.linear import EqualVotesLearner, certify_equal_votes
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_kind
from lightning_poison.functional.ridge import rows_per_chunk

__all__ = ["ClusterVotes", "SignedVotes"]

_BATCH = 1000


class ClusterVotes(EqualVotesLearner):
    r"""The class that is most frequent in a point's cluster, with certificates that are exact up to ties.

    Training points of x's cluster vote with +1, the others not at all. The clusters see features only and are kept when
    the same points are fitted again with other labels, so flipped labels rename clusters and move none. The certificate
    is that of :mod:`lightning_poison.certificates.learners.linear`: half the lead of the cluster's most frequent class.

    More clusters follow the classes more closely and are smaller: clean accuracy rises and radii fall. Choose their
    number without the certified labels.

    Args:
        features: the feature map; None: that of ``CertifiedLearner``. ``HOGFeatures`` suits digits and clothes.
        clusters: how points are divided; None: ``SpectralClusters()``, ten of them.
        transductive: divide training and evaluation inputs together. It is a little more accurate, but the prediction
            of a point then depends on the inputs (never on labels) of the points that are certified along with it.

    Attributes:
        label_counts: shape (clusters, K), int64: the training labels of each cluster; of the last joint division where
            there was one. All that the predictions and certificates depend on.

    Example:
        >>> from lightning_poison.certificates.features import RawFeatures
        >>> from lightning_poison.certificates.learners.clusters import KMeansClusters
        >>> inputs, labels = torch.tensor([[0.0], [0.1], [0.2], [0.3], [9.0]]), torch.tensor([1, 1, 1, 0, 0])
        >>> ClusterVotes(RawFeatures(), KMeansClusters(2)).fit(inputs, labels, num_classes=2).certify(inputs[3:])
        LabelFlipCertificate(prediction=tensor([1, 0]), radius=tensor([0, 0]))
    """

    _outside = 0
    _votes = "votes"

    def __init__(
        self,
        features: LabelFreeFeatures | None = None,
        clusters: Clusters | None = None,
        transductive: bool = False,
    ) -> None:
        super().__init__(features)
        check_kind("clusters", clusters, Clusters, "KMeansClusters(3)", optional=True)
        # A copy: two learners that were given one object must not move each other's clusters.
        self.clusters: Clusters = copy.deepcopy(clusters) if clusters is not None else SpectralClusters()
        self._transductive = bool(transductive)
        self._features = torch.empty(0, 0)
        self._groups: _Groups | None = None

    @property
    def transductive(self) -> bool:  # type: ignore[override]  # a class constant elsewhere, an argument here
        """Whether evaluation inputs take part in the division."""
        return self._transductive

    @property
    def label_counts(self) -> Tensor:
        """Labels of the training points in each cluster, shape (clusters, K), int64."""
        self._check_fitted()
        groups = self._divided(self._features[:0]) if self._groups is None else self._groups
        flat = groups.training * self.num_classes + self.labels
        return torch.bincount(flat, minlength=self.clusters.clusters * self.num_classes).reshape(-1, self.num_classes)

    def certify_features(self, features: Tensor, advance: Advance = lambda _: None) -> LabelFlipCertificate:
        """Certificates of points whose features are known, exact up to ties."""
        self._check_features(features)
        groups = self._divided(features)
        counts = self.label_counts
        scores = (1 - self._outside) * counts + self._outside * counts.sum(dim=0)
        table = certify_equal_votes(scores, self.num_points)
        advance(len(features))
        return LabelFlipCertificate(table.prediction[groups.evaluated], table.radius[groups.evaluated])

    def weight_chunks(self, features: Tensor) -> Iterator[Tensor]:
        """+1 for the training points of x's cluster, and the same for all others."""
        groups = self._divided(features)
        for part in torch.split(groups.evaluated, rows_per_chunk(self.num_points)):
            yield torch.where(part[:, None] == groups.training, 1.0, float(self._outside))

    def describe(self) -> str:
        """The learner in a few words."""
        joint = ", formed by training and evaluation inputs together" if self.transductive else ""
        return f"{self._votes} of {self.clusters.describe()}{joint}"

    def choices(self) -> tuple[str, ...]:
        """Those of the clusters."""
        return self.clusters.choices()

    def check_size(self, num_points: int, num_classes: int) -> None:  # noqa: ARG002  # for those who need them
        """Refuse more clusters than points."""
        if self.clusters.clusters > num_points:
            got = f"{self.clusters.clusters} for {num_points}"
            raise UserError(f"clusters must be at most the number of points, got {got}; lower it")

    def _fit(self, features: Tensor) -> None:
        self.check_size(self.num_points, self.num_classes)
        if not torch.equal(features, self._features):
            self._features, self._groups = features.clone(), None
        if self._groups is None and not self.transductive:
            self._divided(features[:0])

    def _divided(self, features: Tensor) -> _Groups:
        """The division that ``features`` belong to; one that is known stays, whatever happened to the labels."""
        groups = self._groups
        features = features if len(features) else self._features[:0]
        if groups is not None and torch.equal(groups.known, features):
            return groups
        if self.transductive:
            together = self.clusters.fit(torch.cat([self._features, features.to(self._features.dtype)]))
            training, evaluated = together[: len(self._features)], together[len(self._features) :]
        else:
            training = self.clusters.fit(self._features) if groups is None else groups.training
            evaluated = torch.cat([self.clusters.assign(part) for part in torch.split(features, _BATCH)])
        self._groups = _Groups(features.clone(), self._own.alike(training), evaluated)
        return self._groups


@dataclass(frozen=True)
class _Groups:
    """A division of points: of ``known`` features, the training points' groups, and those of evaluated points."""

    known: Tensor
    training: Tensor
    evaluated: Tensor


class SignedVotes(ClusterVotes):
    r"""Every training point votes +1 in x's cluster and -1 elsewhere; ``KernelSigns`` takes the sign from weights.

    Certificates are exact up to ties.

    The largest radii there are where classes form clusters: with one pure cluster for each class the margin is the
    number of points of both classes, and the radius half of it, which no learner that treats the classes alike can
    exceed (see :mod:`lightning_poison.certificates.learners.linear`, where the certificate is proved).

    The score of class c is :math:`2 P_c - T_c` for P_c of its T_c training labels in the cluster: a small class has a
    start over a large one. Where the frequencies differ much, or with many more clusters than classes, a cluster may be
    too small to speak for its class, and :class:`ClusterVotes` is the better choice.

    Args:
        features: the feature map; None: that of ``CertifiedLearner``. ``HOGFeatures`` suits digits and clothes.
        clusters: how points are divided; None: ``SpectralClusters()``, ten of them.
        transductive: divide training and evaluation inputs together. It is a little more accurate, but the prediction
            of a point then depends on the inputs (never on labels) of the points that are certified along with it.

    Example:
        >>> from lightning_poison.certificates.features import RawFeatures
        >>> from lightning_poison.certificates.learners.clusters import KMeansClusters
        >>> inputs, labels = torch.tensor([[0.0], [0.1], [0.2], [9.0], [9.1]]), torch.tensor([1, 1, 1, 0, 0])
        >>> SignedVotes(RawFeatures(), KMeansClusters(2)).fit(inputs, labels, num_classes=2).certify(inputs[2:4])
        LabelFlipCertificate(prediction=tensor([1, 0]), radius=tensor([2, 2]))
    """

    _outside = -1
    _votes = "signed votes"
