"""Kernel ridge regression on label-free features, with certificates."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_poison.certificates.features import LabelFreeFeatures
from lightning_poison.certificates.learners.kernels import Kernel, RBFKernel
from lightning_poison.certificates.learners.linear import LabelLinearLearner
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, check_kind, check_number
from lightning_poison.functional.random_streams import generator
from lightning_poison.functional.ridge import rows_per_chunk

__all__ = ["KernelRidge"]

_REMEDY = "clean the inputs or change the feature map"
_JITTER = 1e-12  # keeps landmarks that repeat each other apart, in units of the largest similarity


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
        self.seed = seed
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
