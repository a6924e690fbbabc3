"""Learners on a kernel: ridge regression, signs and votes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_poison.certificates.features import LabelFreeFeatures
from lightning_poison.certificates.learners.kernels import Kernel, RBFKernel, SimilarityToTraining
from lightning_poison.certificates.learners.linear import EqualVotesLearner, LabelLinearLearner
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, check_kind, check_number
from lightning_poison.functional.random_streams import generator
from lightning_poison.functional.ridge import rows_per_chunk

__all__ = ["KernelRidge", "KernelSigns", "KernelVotes", "signs"]

_REMEDY = "clean the inputs or change the feature map"
_JITTER = 1e-12  # keeps landmarks that repeat each other apart, in units of the largest similarity
_ZERO = 1e-9  # weights of so small a share of the largest are rounding errors, not opinions


# --- ridge regression -------------------------------------------------------------------------------------------------


class KernelRidge(LabelLinearLearner):
    r"""Kernel ridge regression of one-hot labels, with exact label-flip certificates.

    With the kernel matrix K of the training points and their similarities k(x) to a point, the scores of x are
    :math:`k(x)^T (K + \lambda I)^{-1} Y`: votes with weights :math:`w(x) = (K + \lambda I)^{-1} k(x)`, which see no
    label. With more training points than ``landmarks`` the solution is sought in the span of so many random ones
    (Nystrom; Rudi et al., 2015), B their similarities to all points and L to each other:
    :math:`w(x) = B (B^T B + \lambda L)^{-1} l(x)`, which is linear in the labels just as well, so that the
    certificate is exact for this learner; memory grows with n x landmarks instead of n x n.

    Args:
        features: the feature map; None: that of :class:`CertifiedLearner`.
        kernel: the similarity, fitted to the training inputs alone; None: ``RBFKernel`` of median bandwidth.
        regularisation: :math:`\lambda` in units of the trace of K, > 0. More of it gives larger radii and, in time,
            fewer right predictions. Choose it without the labels that are certified.
        landmarks: at most so many training points span the solution.
        seed: which training points are landmarks.

    Raises:
        UserError: the regularisation is too small for this kernel.

    Example:
        >>> from lightning_poison.certificates.features import RawFeatures
        >>> inputs, labels = torch.tensor([[0.0], [0.1], [0.0], [9.0]]), torch.tensor([0, 0, 0, 1])
        >>> KernelRidge(RawFeatures(), regularisation=0.1).fit(inputs, labels, num_classes=2).certify(inputs[:1])
        LabelFlipCertificate(prediction=tensor([0]), radius=tensor([1]))
    """

    def __init__(
        self,
        features: LabelFreeFeatures | None = None,
        kernel: Kernel | None = None,
        regularisation: float = 0.01,
        landmarks: int = 2000,
        seed: int = 0,
    ) -> None:
        super().__init__(features)
        check_kind("kernel", kernel, Kernel, "RBFKernel()", optional=True)
        self.kernel: Kernel = copy.deepcopy(kernel) if kernel is not None else RBFKernel()
        self.regularisation = check_number("regularisation", regularisation, minimum=0)
        self.landmarks = check_integer("landmarks", landmarks, minimum=1)
        self.seed = check_integer("seed", seed, minimum=0)
        self._spanning: Tensor
        self._similarity: Tensor | None = None
        self._factor: Tensor

    def _fit(self, features: Tensor) -> None:
        check_finite("features", features, remedy=_REMEDY)
        self.kernel.fit(features)
        self._similarity = None
        if len(features) <= self.landmarks:
            self._spanning = features
            matrix = self.kernel.matrix(features, features)
            matrix.diagonal().add_(self.regularisation * matrix.trace())
        else:
            chosen = torch.randperm(len(features), generator=generator(self.seed, "landmarks"))[: self.landmarks]
            self._spanning = features[chosen.sort().values]
            similarity = self.kernel.matrix(features, self._spanning)
            inner = self.kernel.matrix(self._spanning, self._spanning)
            inner.diagonal().add_(_JITTER * inner.diagonal().max())
            trace = inner.diagonal().mean() * len(features)
            matrix = similarity.T @ similarity + self.regularisation * trace * inner
            self._similarity = similarity
        self._factor = _cholesky(matrix, self.regularisation)

    def weight_chunks(self, features: Tensor) -> Iterator[Tensor]:
        """The weights w(x) of all training points."""
        for chunk in torch.split(features, rows_per_chunk(len(self._spanning))):
            similarity = check_finite("similarities", self.kernel.matrix(self._spanning, chunk), remedy=_REMEDY)
            solved = torch.cholesky_solve(similarity, self._factor).T
            for part in torch.split(solved, rows_per_chunk(self.num_points)):
                yield part if self._similarity is None else part @ self._similarity.T

    def describe(self) -> str:
        """The learner in a few words."""
        span = "" if self._similarity is None else f", {len(self._spanning)} landmarks"
        return f"kernel ridge regression ({self.kernel.describe()}, relative strength {self.regularisation:g}{span})"

    def choices(self) -> tuple[str, ...]:
        """The kernel, the strength, and the number of landmarks where it matters."""
        return ("the kernel", "the strength", *(() if self._similarity is None else ("the number of landmarks",)))


def _cholesky(matrix: Tensor, regularisation: float) -> Tensor:
    if not matrix.any():  # a kernel that is zero gives the weights zero
        matrix.diagonal().fill_(1.0)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed) or not torch.isfinite(factor).all():
        raise UserError(
            f"regularisation must be larger for this kernel, got {regularisation:g} with a singular matrix; try 0.01"
        )
    result: Tensor = factor
    return result


# --- votes weighted by similarity -------------------------------------------------------------------------------------


class KernelVotes(LabelLinearLearner):
    """Every training point votes for its label, weighted by its similarity to x (Parzen's classifier).

    Heavy points cost radius; ``KernelSigns`` keeps but the signs of such weights, ``SignedVotes`` takes the sign from
    clusters instead of a kernel. Certificates are exact.

    Args:
        features: the feature map; None: that of :class:`CertifiedLearner`.
        kernel: the similarity, fitted to the training inputs alone; None: cosine.

    Example:
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


# --- votes by the sign of weights -------------------------------------------------------------------------------------


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
