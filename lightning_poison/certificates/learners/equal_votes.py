"""Learners whose training points vote with one size: for, against, or not at all."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_poison.certificates.equal_votes import certify_equal_votes
from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.certificates.learner import Advance
from lightning_poison.certificates.learners.linear import LabelLinearLearner
from lightning_poison.errors import UserError

__all__ = ["EqualVotesLearner"]

_EXACT = 2**24  # sums of fewer votes are exact in float32


class EqualVotesLearner(LabelLinearLearner):
    """A label-linear learner whose weights are -1, 0 or 1: certificates by counting, exact up to ties.

    No training point weighs more than another, so an adversary finds none that is worth more than two votes; weighted
    learners lose their heaviest points first. The theorem is that of :mod:`lightning_poison.certificates.equal_votes`.
    """

    def certify_features(self, features: Tensor, advance: Advance = lambda _: None) -> LabelFlipCertificate:
        """Certificates of points whose features are known, exact up to ties."""
        self._check_features(features)
        if self.num_points >= _EXACT:
            raise UserError(f"labels must be fewer than {_EXACT} for votes, got {self.num_points}; take a part of them")
        one_hot = torch.nn.functional.one_hot(self.labels, self.num_classes).float()
        scores = [one_hot[:0].long()]
        for votes in self.vote_chunks(features):
            scores.append((votes.float() @ one_hot).long())
            advance(len(votes))
        return certify_equal_votes(torch.cat(scores), self.num_points)
