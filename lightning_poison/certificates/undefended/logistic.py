"""Binary logistic regression of many label vectors at once, by Newton's method from where the last fit ended."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_poison.errors import UserError

__all__ = ["LogisticFits"]

_TOLERANCE = 1e-9  # of the gradient, in units of the largest that n points can give
_ITERATIONS = 100
_SLOW = 0.3  # a step that leaves more of the gradient than this asks for a new Hessian


class LogisticFits:
    r"""B logistic regressions on the same features, each with its own labels.

    Column b minimises :math:`\sum_i \log(1 + e^{-s_{ib} x_i^T \theta_b}) + \tfrac{\lambda}{2} \|\theta_b\|^2`, where
    :math:`s_{ib} = 1` for label 1, else -1. Changing a few labels moves the minimum little: a refit starts from the
    last minimum and keeps the Hessian for as long as it serves.

    Args:
        features: X, shape (n, d), float64.
        labels: shape (n, B), bool: label 1.
        strength: :math:`\lambda` > 0.
        start: shape (d, B), float64; zero by default.

    Attributes:
        labels: shape (n, B), bool; change them, then call :meth:`refit`.
        coefficients: shape (d, B), float64.
    """

    def __init__(self, features: Tensor, labels: Tensor, strength: float, start: Tensor | None = None) -> None:
        self.features, self.labels, self.strength = features, labels.clone(), strength
        count = (features.shape[1], labels.shape[1])
        self.coefficients = features.new_zeros(count) if start is None else start.clone()
        self._scale = float(features.abs().sum(0).max()) + strength
        self._factors = features.new_zeros(count[1], count[0], count[0])
        self.refresh(torch.arange(count[1]))
        self.refit()

    def refit(self) -> None:
        """Move to the minimum for the labels as they are now.

        Raises:
            UserError: the strength is so small that Newton's method finds none.
        """
        gradient = self._gradient(self.coefficients, self.labels)
        todo = (gradient.abs().amax(0) > _TOLERANCE * self._scale).nonzero()[:, 0]
        gradient = gradient[:, todo]
        for _ in range(_ITERATIONS):
            if len(todo) == 0:
                return
            gradient, slow = self._step(todo, gradient)
            self.refresh(todo[slow])
            open_ = gradient.abs().amax(0) > _TOLERANCE * self._scale
            todo, gradient = todo[open_], gradient[:, open_]
        raise UserError(f"strength must be larger for these features, got {self.strength:g}; try 1.0")

    def _step(self, rows: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """A Newton step of some columns, halved until the gradient shrinks; the new gradient, and who was slow."""
        direction = -self.solve(gradient, rows)
        before, start = gradient.norm(dim=0), self.coefficients[:, rows]
        labels, length = self.labels[:, rows], torch.ones_like(before)
        for _ in range(30):
            moved = start + length * direction
            after = self._gradient(moved, labels)
            worse = after.norm(dim=0) >= before
            if not worse.any():
                break
            length = torch.where(worse, length / 2, length)
        self.coefficients[:, rows] = moved
        return after, (after.norm(dim=0) > _SLOW * before).nonzero()[:, 0]

    def refresh(self, rows: Tensor) -> None:
        """Compute the Hessians of some columns anew, at the present coefficients."""
        share = torch.sigmoid(self.features @ self.coefficients[:, rows])
        for row, curvature in zip(rows.tolist(), (share * (1 - share)).T, strict=True):
            hessian = self.features.T @ (self.features * curvature[:, None])
            hessian.diagonal().add_(self.strength)
            self._factors[row] = torch.linalg.cholesky(hessian)

    def solve(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """The inverse Hessian of column ``rows[b]`` times ``vectors[:, b]``: shape (d, len(rows))."""
        solved: Tensor = torch.cholesky_solve(vectors.T[:, :, None], self._factors[rows])[:, :, 0].T
        return solved

    def keep(self, rows: Tensor) -> None:
        """Drop all other columns."""
        self.labels, self.coefficients = self.labels[:, rows], self.coefficients[:, rows]
        self._factors = self._factors[rows]

    def _gradient(self, coefficients: Tensor, labels: Tensor) -> Tensor:
        share = torch.sigmoid(self.features @ coefficients)
        return self.features.T @ (share - labels.double()) + self.strength * coefficients
