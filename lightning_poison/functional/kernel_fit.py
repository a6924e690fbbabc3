"""Kernel ridge regression as a Gaussian process: what it predicts, and with some labels forced."""

from __future__ import annotations

import torch
from scipy.linalg import lapack
from torch import Tensor

from lightning_poison.errors import UserError

__all__ = ["ForcedFit", "KernelFit"]

_BLOCK = 1000  # rows or columns that are converted to float64 at once
_SETTLED = 1e-6  # of the mean variance: below it, the points forced so far decide a point's value


class KernelFit:
    r"""Kernel ridge regression on some of n points.

    With kernel matrix K of the training points and :math:`G = K + \lambda I`, it is the mean of a Gaussian process
    whose values are seen with noise of variance :math:`\lambda` (Rasmussen and Williams, 2006, eq. 2.23 and 2.24):

    .. math:: s(x) = k(x)^T G^{-1} Y, \qquad c(x, x') = k(x, x') - k(x)^T G^{-1} k(x').

    Since :math:`K G^{-1} = I - \lambda G^{-1}`, the covariance with training points is
    :math:`c(x, T) = \lambda k(x)^T G^{-1}`: lambda times the weight of each label in the prediction at x, on the
    diagonal lambda times the leverage. It is solved in float64; covariances are kept in float32.

    Args:
        kernel: shape (n, n), float32, symmetric positive semi-definite. It becomes the covariance: pass a copy to keep
            it. One more matrix of its size in float64 is needed for a while.
        training: shape (t,), int64: the points whose labels are fitted.
        targets: shape (t, K), float: their one-hot labels.
        noise: :math:`\lambda`, positive, in units of the kernel.

    Attributes:
        training: the points whose labels are fitted.
        coefficients: shape (t, K), float64: :math:`G^{-1} Y`.
        scores: shape (n, K), float64: s at all points.
        covariance: shape (n, n), float32: c between all points.

    Raises:
        UserError: G is singular, or the kernel is not finite.

    Example:
        >>> fit = KernelFit(torch.eye(2), torch.tensor([0]), torch.tensor([[1.0]]), noise=1.0)
        >>> fit.scores.float().tolist(), fit.covariance.tolist()
        ([[0.5], [0.0]], [[0.5, 0.0], [0.0, 1.0]])
    """

    def __init__(self, kernel: Tensor, training: Tensor, targets: Tensor, noise: float) -> None:
        self.training, self.noise = training, noise
        inverse = _inverse(kernel, training, noise)
        self.coefficients = inverse @ targets.double()
        self.scores = torch.cat([self.scores_at(rows) for rows in torch.split(kernel, _BLOCK)])
        others = torch.ones(len(kernel), dtype=torch.bool).index_fill_(0, training, value=False).nonzero()[:, 0]
        rows = kernel[others[:, None], training].double()
        weights = rows @ inverse  # of each label in the predictions at the other points
        within = kernel[others[:, None], others].double() - weights @ rows.T
        inverse.mul_(-(noise**2)).diagonal().add_(noise)
        kernel[training[:, None], training] = inverse.float()
        kernel[others[:, None], training] = (noise * weights).float()
        kernel[training[:, None], others] = (noise * weights).float().T
        kernel[others[:, None], others] = within.float()
        self.covariance = kernel

    def scores_at(self, kernel: Tensor) -> Tensor:
        """Predictions at other points, (m, K), float64, from their kernel with all points, (m, n)."""
        return kernel[:, self.training].double() @ self.coefficients

    def covariance_to(self, kernel: Tensor) -> Tensor:
        r"""Covariances of other points with all points.

        From :math:`G^{-1} k(x) = c(T, x) / \lambda`.

        Args:
            kernel: shape (m, n), float32: k between the other points and all points.

        Returns:
            shape (m, n), float32.
        """
        rows = kernel[:, self.training].double() / self.noise
        parts = []
        for columns in torch.split(torch.arange(kernel.shape[1]), _BLOCK):
            known = self.covariance[self.training[:, None], columns].double()
            parts.append((kernel[:, columns].double() - rows @ known).float())
        return torch.cat(parts, dim=1)


def _inverse(kernel: Tensor, training: Tensor, noise: float) -> Tensor:
    """G^-1 in float64, made in the memory of G: torch's own way holds three such matrices."""
    matrix = torch.empty(len(training), len(training), dtype=torch.float64)
    for rows, part in zip(torch.split(matrix, _BLOCK), torch.split(training, _BLOCK), strict=True):
        rows.copy_(kernel[part[:, None], training])
    matrix.diagonal().add_(noise)
    if not torch.isfinite(matrix.sum()):
        raise UserError("the kernel of these inputs is not finite; scale the inputs to [0, 1], and check them for NaN")
    factor, failed = lapack.dpotrf(matrix.numpy().T, lower=1, overwrite_a=1)
    if failed:
        raise UserError(
            f"noise must be larger for this kernel, got {noise:g} with a singular matrix; try noise={10 * noise:g}"
        )
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    return _mirrored(torch.from_numpy(inverse.T))


def _mirrored(matrix: Tensor) -> Tensor:
    """Write the upper triangle over the lower."""
    for start in range(0, len(matrix), _BLOCK):
        stop = start + _BLOCK
        matrix[start:stop, :start] = matrix[:start, start:stop].T
        corner = matrix[start:stop, start:stop]
        corner.copy_(corner.triu() + corner.triu(1).T)
    return matrix


# --- forced labels ----------------------------------------------------------------------------------------------------


class ForcedFit:
    r"""A fit in which chosen points are memorised, and what forcing one more would do.

    Forcing the score at point i to the value v conditions the Gaussian process of a :class:`KernelFit` on a value seen
    without noise:

    .. math:: s(x) \leftarrow s(x) + \frac{c(x, x_i)}{c(x_i, x_i)} (v - s(x_i)), \qquad
              c(x, x') \leftarrow c(x, x') - \frac{c(x, x_i)\, c(x_i, x')}{c(x_i, x_i)}.

    By the block inverse (Schur complement) of the covariance matrix any number of such steps, in any order, ends in the
    minimiser of :math:`\sum_{j \in T} (s(x_j) - y_j)^2 + \lambda \|s\|^2` over all s with :math:`s(x_i) = v_i` for
    every forced i. The own label of a forced training point is then without effect, so that the first step is the
    weight of its label divided by its leverage, times what is missing: the effect of the smallest change of a label
    that makes the fit memorise the flip.

    Args:
        fit: the fit to the clean labels; it is not changed.

    Attributes:
        scores: shape (n, K), float64: at all points, after the forced ones.
        variance: shape (n,), float64: c(x_i, x_i), likewise.
        forced: the forced points, in their order.

    Example:
        >>> fit = KernelFit(torch.tensor([[1.0, 0.5], [0.5, 1.0]]), torch.tensor([0]), torch.tensor([[1.0]]), noise=1.0)
        >>> forced = ForcedFit(fit)
        >>> forced.force(0, torch.tensor([-1.0]))
        >>> forced.scores.float().tolist()
        [[-1.0], [-0.5]]
    """

    def __init__(self, fit: KernelFit) -> None:
        self._fit = fit
        self.scores = fit.scores.clone()
        self.variance = fit.covariance.diagonal().double().clone()
        self._floor = _SETTLED * float(self.variance.mean())
        self.forced: list[int] = []
        self._directions: list[Tensor] = []  # c(x, x_i) / sqrt(c(x_i, x_i)) when i was forced
        self._amounts: list[Tensor] = []  # (v - s(x_i)) / sqrt(c(x_i, x_i)), likewise
        self._outer, self.outer_scores = fit.covariance[:0], fit.scores[:0]

    def watch(self, kernel: Tensor) -> None:
        """Follow the scores of outer points, instead of those followed so far.

        Args:
            kernel: shape (m, n), float32: k between the outer points and all points.
        """
        self._outer, self.outer_scores = self._fit.covariance_to(kernel), self._fit.scores_at(kernel)
        for point, direction, amount in zip(self.forced, self._directions, self._amounts, strict=True):
            self._move_outer(point, direction, amount)

    def ratios(self, points: Tensor) -> Tensor:
        """c(x, x_i) / c(x_i, x_i) of the outer points and some points: (m, points), float32; 0 where i is settled."""
        variance = self.variance[points]
        return self._outer[:, points] * torch.where(variance > self._floor, 1 / variance, 0.0).float()

    def force(self, point: int, value: Tensor) -> None:
        """Make the fit pass through a value, unless the points forced so far have settled what it is there.

        Args:
            point: number of the point.
            value: shape (K,), float.
        """
        if not float(self.variance[point]) > self._floor:
            return
        row = self._fit.covariance[point].double()
        for direction in self._directions:
            row = row - direction[point] * direction
        direction = row / row[point].sqrt()
        amount = (value.double() - self.scores[point]) / row[point].sqrt()
        self.scores = self.scores + direction[:, None] * amount
        self.variance = self.variance - direction.square()
        self._move_outer(point, direction, amount)
        self.forced.append(point)
        self._directions.append(direction)
        self._amounts.append(amount)

    def coefficients(self) -> Tensor:
        r"""The fit as a sum of kernels: a with :math:`s(x) = k(x)^T a` over all n points, (n, K), float64.

        The forced points P move it by :math:`c(x, P)\, C^{-1} (v - s(P))`, C = c(P, P), all before they were forced,
        and :math:`c(x, P) = k(x, P) - k(x, T)\, c(T, P) / \lambda`.
        """
        training, points = self._fit.training, torch.tensor(self.forced, dtype=torch.int64)
        coefficients = torch.zeros_like(self.scores).index_copy_(0, training, self._fit.coefficients)
        covariance = self._fit.covariance[:, points].double()
        moved = torch.linalg.solve(covariance[points], self.scores[points] - self._fit.scores[points])
        coefficients[training] -= covariance[training] @ moved / self._fit.noise
        return coefficients.index_add_(0, points, moved)

    def _move_outer(self, point: int, direction: Tensor, amount: Tensor) -> None:
        share = self._outer[:, point] / direction[point]
        self.outer_scores = self.outer_scores + share[:, None] * amount
        self._outer = self._outer.addr(share.float(), direction.float(), alpha=-1)
