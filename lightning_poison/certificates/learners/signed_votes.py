"""Votes of all training points, for the classes of a point's cluster and against the others."""

from __future__ import annotations

from lightning_poison.certificates.learners.cluster_votes import ClusterVotes

__all__ = ["SignedVotes"]


class SignedVotes(ClusterVotes):
    r"""Every training point votes +1 in x's cluster and -1 elsewhere; ``KernelSigns`` takes the sign from weights.

    Certificates are exact up to ties.

    The largest radii there are where classes form clusters: with one pure cluster for each class the margin is the
    number of points of both classes, and the radius half of it, which no learner that treats the classes alike can
    exceed (see :mod:`lightning_poison.certificates.equal_votes`, where the certificate is proved).

    The score of class c is :math:`2 P_c - T_c` for P_c of its T_c training labels in the cluster: a small class has a
    start over a large one. Where the frequencies differ much, or with many more clusters than classes, a cluster may be
    too small to speak for its class, and :class:`ClusterVotes` is the better choice.

    Args:
        features: the feature map; None: that of ``CertifiedLearner``. ``HOGFeatures`` suits digits and clothes.
        clusters: how points are divided; None: ``SpectralClusters()``, ten of them.
        transductive: divide training and evaluation inputs together. It is a little more accurate, but the prediction
            of a point then depends on the inputs (never on labels) of the points that are certified along with it.

    Example:
        >>> import torch
        >>> from lightning_poison.certificates.features import RawFeatures
        >>> from lightning_poison.certificates.learners.clusters import KMeansClusters
        >>> inputs, labels = torch.tensor([[0.0], [0.1], [0.2], [9.0], [9.1]]), torch.tensor([1, 1, 1, 0, 0])
        >>> SignedVotes(RawFeatures(), KMeansClusters(2)).fit(inputs, labels, num_classes=2).certify(inputs[2:4])
        LabelFlipCertificate(prediction=tensor([1, 0]), radius=tensor([2, 2]))
    """

    _outside = -1
    _votes = "signed votes"
