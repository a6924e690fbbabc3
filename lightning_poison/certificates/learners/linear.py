"""Learners whose class scores are sums of weights over the training points of a class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from lightning_poison.certificates.attack import OptimalFlips, optimal_label_flips
from lightning_poison.certificates.collective import CollectiveCertificate, certify_together
from lightning_poison.certificates.label_linear import LabelFlipCertificate, certify_label_linear
from lightning_poison.certificates.learner import Advance, CertifiedLearner

__all__ = ["LabelLinearLearner"]


class LabelLinearLearner(CertifiedLearner):
    """A learner that is linear in its labels: exact certificates, and the optimal attack.

    A subclass says with which weights w_i(x) the training points vote on x; they may depend on every input, and on no
    label. The theorem is that of :mod:`lightning_poison.certificates.label_linear`.
    """

    @abstractmethod
    def weight_chunks(self, features: Tensor) -> Iterator[Tensor]:
        """The vote weights of points, in chunks (m', n) that follow each other, so that (m, n) never exists.

        Args:
            features: shape (m, d), m > 0.

        Returns:
            over the training points in the learner's own order.
        """

    def vote_chunks(self, features: Tensor) -> Iterator[Tensor]:
        """:meth:`weight_chunks`, where training points that equal each other weigh alike to the last bit.

        Which of them has which label is not told by points and labels, so it must not matter.
        """
        for weights in self.weight_chunks(features) if len(features) else ():
            yield self._own.alike(weights, dim=1)

    def weights(self, features: Tensor) -> Tensor:
        """The vote weights of points as one matrix, shape (m, n), float; training points stand as they were given."""
        self._check_features(features)
        return torch.cat([torch.empty(0, self.num_points), *self.vote_chunks(features)])[:, self.order.argsort()]

    def certify_features(self, features: Tensor, advance: Advance = lambda _: None) -> LabelFlipCertificate:
        """Exact certificates of points whose features are known."""
        self._check_features(features)

        def chunks() -> Iterator[Tensor]:
            for weights in self.vote_chunks(features):
                yield weights
                advance(len(weights))

        return certify_label_linear(chunks(), self.labels, self.num_classes)

    def certify_together(self, features: Tensor, budget: int) -> CollectiveCertificate:
        """How many of these predictions one adversary with ``budget`` label changes in all can change.

        Args:
            features: shape (m, d).
            budget: r.
        """
        self._check_features(features)
        found = certify_together(self.vote_chunks(features), self.labels, self.num_classes, budget)
        index, order = self.order[found.index].sort()
        return replace(found, index=index, new_label=found.new_label[order])

    def optimal_flips(self, features: Tensor) -> list[OptimalFlips | None]:
        """For each point the fewest label changes that alter its prediction; None where nothing does.

        Args:
            features: shape (m, d).
        """
        given = torch.empty_like(self.labels)
        given[self.order] = self.labels
        return [optimal_label_flips(weights, given, self.num_classes) for weights in self.weights(features)]
