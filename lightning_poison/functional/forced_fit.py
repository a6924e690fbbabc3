"""Kernel ridge regression that is made to pass through chosen values, one point after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_poison.functional.kernel_fit import KernelFit

__all__ = ["ForcedFit"]

_SETTLED = 1e-6  # of the mean variance: below it, the points forced so far decide a point's value


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
