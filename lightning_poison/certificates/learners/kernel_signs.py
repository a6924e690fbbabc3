"""Votes by the sign of another learner's weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_poison.certificates.learners.equal_votes import EqualVotesLearner
from lightning_poison.certificates.learners.linear import LabelLinearLearner
from lightning_poison.functional.checks import check_finite, check_kind, check_number

__all__ = ["KernelSigns", "signs"]

_ZERO = 1e-9  # weights of so small a share of the largest are rounding errors, not opinions


class KernelSigns(EqualVotesLearner):
    """Every training point votes +1 or -1: the sign of its weight in another learner, as that of ``KernelVotes``.

    +1 is x's side of the data, -1 the other; ``SignedVotes`` takes the sign from clusters instead.

    The adversary loses the heavy points: the radius is half the margin of votes. What it costs in clean accuracy
    depends on how many directions the weights use; fewer (``max_dim`` of ridge, dimensions of PCA) mean larger radii.
    Weights of an intercept are positive everywhere and drown small ones: leave it out.

    Args:
        method: whose weights; it is fitted here. Weights must have either sign, as those of ``CertifiedRidge``,
            ``KernelRidge`` and ``KernelVotes(kernel=CosineKernel(centre=True))``, unless ``share`` is given.
        share: the part of the training points, those with the largest weights, that votes +1 while all others vote
            -1, in (0, 1); about 1/K suits K classes. None: the sign of the weight.

    Example:
        >>> from lightning_poison.certificates.features import RawFeatures
        >>> from lightning_poison.certificates.learners import CertifiedRidge
        >>> inputs = torch.tensor([[-2.0], [-1.0], [-1.5], [1.0], [3.0], [2.0]])
        >>> learner = KernelSigns(CertifiedRidge(RawFeatures(), intercept=False))
        >>> learner.fit(inputs, torch.tensor([0, 0, 0, 1, 1, 1]), num_classes=2).certify(inputs[:1])
        LabelFlipCertificate(prediction=tensor([0]), radius=tensor([2]))
    """

    def __init__(self, method: LabelLinearLearner, share: float | None = None) -> None:
        check_kind("method", method, LabelLinearLearner, "CertifiedRidge(intercept=False)")
        super().__init__(method.features if method.has_own_features else None)
        # A copy: fitting the method to other points must not move these votes. Its features are this learner's own.
        self.method = copy.deepcopy(method, {id(method.features): method.features})
        self.share = None if share is None else check_number("share", share, minimum=0, maximum=1)

    @property
    def transductive(self) -> bool:  # type: ignore[override]  # a class constant elsewhere, the method's here
        """Whether the method is."""
        return self.method.transductive

    def _fit(self, features: Tensor) -> None:
        self.method.fit_features(features, self.labels, self.num_classes)

    def weight_chunks(self, features: Tensor) -> Iterator[Tensor]:
        """The signs of the method's weights, float32."""
        for weights in self.method.weight_chunks(features):
            yield signs(weights, self.share)

    def describe(self) -> str:
        """The learner in a few words."""
        rule = "the sign" if self.share is None else f"the largest {self.share:.1%}"
        return f"votes by {rule} of the weights of {self.method.describe()}"

    def choices(self) -> tuple[str, ...]:
        """Those of the method, and the share."""
        return (*self.method.choices(), *(() if self.share is None else ("the share",)))


def signs(weights: Tensor, share: float | None = None) -> Tensor:
    """Votes of one size: the signs of weights, or +1 for the largest and -1 for all others.

    Args:
        weights: shape (m, n), float. Without ``share`` the vote is 0 where the weight is but a rounding error.
        share: of the n weights in a row that vote +1, rounded up; equal weights vote alike.

    Returns:
        shape (m, n), float32, each entry -1, 0 or 1.

    Example:
        >>> signs(torch.tensor([[0.5, -2.0, 0.0, 1e-12]])).tolist()
        [[1.0, -1.0, 0.0, 0.0]]
        >>> signs(torch.tensor([[0.5, 2.0, 0.25, 1.0]]), share=0.5).tolist()
        [[-1.0, 1.0, -1.0, 1.0]]
    """
    check_finite("weights", weights, remedy="clean the inputs or raise the regularisation")
    if share is None:
        floor = _ZERO * weights.abs().amax(1, keepdim=True)
        return torch.where(weights.abs() > floor, weights.sign(), 0).float()
    count = min(max(math.ceil(share * weights.shape[1]), 1), weights.shape[1])
    threshold = weights.kthvalue(weights.shape[1] - count + 1, dim=1, keepdim=True).values
    return (weights >= threshold).float().mul_(2).sub_(1)
