"""Multinomial logistic regression with its Hessian."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from lightning_poison.errors import UserError
from lightning_poison.functional.tangents import Solution, conjugate_gradients

__all__ = ["SoftmaxRegression"]

_STEPS, _TOLERANCE = 100, 1e-10
_SOLVED = 1e-6  # of the residual may be left


class SoftmaxRegression:
    r"""The weights W that minimise a penalised cross-entropy, and the curvature at this minimum.

    .. math:: F(W) = \frac1n \sum_i -\log \mathrm{softmax}(W x_i)_{y_i} + \frac\lambda2 \|W\|^2

    is strictly convex for lambda > 0; Newton's method with backtracking finds its minimum. Its Hessian

    .. math:: H = \frac1n \sum_i (\mathrm{diag}(p_i) - p_i p_i^T) \otimes x_i x_i^T + \lambda I

    is never formed: systems are solved by conjugate gradients, with the Kronecker product of the mean of the left
    factors and the mean of the right ones (weighted by how undecided a point is) as the preconditioner.

    Args:
        features: x, shape (n, d), float64.
        labels: y, shape (n,), int64.
        num_classes: K; classes without a point are allowed.
        strength: lambda, positive.

    Attributes:
        weights: W, shape (K, d), float64.

    Raises:
        UserError: Newton's method does not converge.

    Example:
        >>> features = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
        >>> SoftmaxRegression(features, torch.tensor([1, 0]), 2, strength=0.1).weights
        tensor([[-1.0640],
                [ 1.0640]], dtype=torch.float64)
    """

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int, strength: float) -> None:
        self.features, self.labels, self.strength = features, labels, strength
        self._one_hot = one_hot(labels, num_classes).double()
        self.weights = torch.zeros(num_classes, features.shape[1], dtype=torch.float64)
        self._fit()

    @cached_property
    def probabilities(self) -> Tensor:
        """p, shape (n, K)."""
        return torch.softmax(self.features @ self.weights.T, dim=1)

    def hessian_product(self, direction: Tensor) -> Tensor:
        """H V, for V of shape (K, d)."""
        tangents = self.features @ direction.T
        pushed = self.probabilities * (tangents - (self.probabilities * tangents).sum(dim=1, keepdim=True))
        return pushed.T @ self.features / len(self.features) + self.strength * direction

    def solve(self, right: Tensor) -> Tensor:
        """H^-1 B, for B of shape (K, d).

        Raises:
            UserError: H is too badly conditioned.
        """
        solution = self._solution(right, tolerance=1e-9)
        if solution.residual > _SOLVED:
            raise UserError(
                f"damping must be larger for these features, got one (strength {self.strength:.3g}) with which "
                f"{solution.steps} steps of conjugate gradients leave {solution.residual:.1e} of the residual"
            )
        return solution.value

    def _solution(self, right: Tensor, tolerance: float) -> Solution:
        return conjugate_gradients(
            self.hessian_product, right, precondition=self._preconditioner(), tolerance=tolerance
        )

    def _fit(self) -> None:
        first, before = None, torch.inf
        for _ in range(_STEPS):
            gradient = self._gradient()
            size = float(gradient.norm())
            first = size if first is None else first
            # Within rounding of the minimum the norm no longer falls.
            if size <= _TOLERANCE * first or (size <= 1e-7 * first and size >= before / 2):
                return
            before = size
            self._step(gradient, self._solution(gradient, tolerance=min(0.1, (size / first) ** 0.5)).value)
        raise UserError(
            f"the last layer's regression did not converge in {_STEPS} Newton steps; raise damping above this one "
            f"(strength {self.strength:.3g})"
        )

    def _step(self, gradient: Tensor, direction: Tensor) -> None:
        start, value, slope = self.weights, self._value(self.weights), float((gradient * direction).sum())
        size = 1.0
        while self._value(start - size * direction) > value - 1e-4 * size * slope + 1e-14 * abs(value) and size > 1e-8:
            size /= 2
        self.weights = start - size * direction
        self.__dict__.pop("probabilities", None)

    def _value(self, weights: Tensor) -> float:
        penalty = self.strength / 2 * weights.square().sum()
        return float(cross_entropy(self.features @ weights.T, self.labels) + penalty)

    def _gradient(self) -> Tensor:
        errors = self.probabilities - self._one_hot
        return errors.T @ self.features / len(self.features) + self.strength * self.weights

    def _preconditioner(self) -> Callable[[Tensor], Tensor]:
        p, count = self.probabilities, len(self.features)
        undecided = (1 - p.square().sum(dim=1)).clamp_min(1e-300)
        left = (torch.diag(p.sum(dim=0)) - p.T @ p) / undecided.sum()
        right = (self.features * undecided[:, None]).T @ self.features / count
        left_values, left_vectors = torch.linalg.eigh(left)
        right_values, right_vectors = torch.linalg.eigh(right)
        spectrum = left_values.clamp_min(0)[:, None] * right_values.clamp_min(0) + self.strength

        def apply(residual: Tensor) -> Tensor:
            turned = left_vectors.T @ residual @ right_vectors / spectrum
            solved: Tensor = left_vectors @ turned @ right_vectors.T
            return solved

        return apply
