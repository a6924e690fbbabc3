"""Ridge regression seen from its training labels: every prediction is a weighted vote of them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_labels, check_number
from lightning_poison.functional.scale import unit_of

__all__ = ["Ridge", "rows_per_chunk"]

_BLOCK_BYTES = 64 * 2**20


def rows_per_chunk(columns: int, *, budget: int = 64 * 2**20) -> int:
    """How many float64 rows of ``columns`` entries fit in ``budget`` bytes, at least one.

    Example:
        >>> rows_per_chunk(60_000)
        139
    """
    return max(budget // (8 * max(columns, 1)), 1)


class Ridge:
    r"""Ridge regression of one-hot labels, fitted without them.

    The coefficients that minimise :math:`\|X B - Y\|^2 + \lambda \|B\|^2` give a point x the class scores

    .. math:: x^T B = w(x)^T Y, \qquad w(x) = X (X^T X + \lambda I)^{-1} x,

    so the score of class c is the sum of w_i(x) over the training points i with label c: a vote whose weights see no
    label (Rosenfeld et al., 2020, eq. 12). With more features than points the same weights come from
    :math:`(X X^T + \lambda I)^{-1} X x`. Everything is computed in float64 by a Cholesky factorisation.

    The features stay as they are (float32, or on disk and mapped into memory): blocks of rows are read one after the
    other and summed up in float64.

    The strength is relative: :math:`\lambda` = ``regularisation`` times the mean eigenvalue of :math:`X^T X`, that is
    trace / d, so that one value suits data of any size and scale. It must not be chosen with the labels that are to
    be certified (eq. 6 of the paper does, which breaks the proof).

    Args:
        features: X, shape (n, d), any float dtype.
        regularisation: relative strength, >= 0; 0 is least squares and needs features of full rank.
        intercept: add a constant feature, as large as the root mean square of the others and penalised like them.

    Attributes:
        features: X as given.
        strength: :math:`\lambda`, absolute.

    Raises:
        UserError: X is not a matrix of finite numbers, or X^T X + lambda I is singular.

    Example:
        >>> ridge = Ridge(torch.eye(2), regularisation=1.0, intercept=False)
        >>> ridge.strength, ridge.weights(torch.tensor([[3.0, 0.0]]))
        (1.0, tensor([[1.5000, 0.0000]], dtype=torch.float64))
    """

    def __init__(self, features: Tensor, regularisation: float = 0.3, *, intercept: bool = True) -> None:
        if features.ndim != 2 or not features.is_floating_point() or features.numel() == 0:
            got = f"shape {tuple(features.shape)}, dtype {features.dtype}"
            raise UserError(f"features must be a non-empty float matrix (points, dimensions), got {got}; flatten them")
        for part in torch.split(features, rows_per_chunk(features.shape[1], budget=_BLOCK_BYTES)):
            check_finite("features", part, remedy="clean the inputs or change the feature map")
        self.features = features
        self._unit = unit_of(features)
        self._dual = features.shape[1] + intercept > features.shape[0]
        self._constant = _root_mean_square(features, self._unit) if intercept else None
        self._factor = self._cholesky(check_number("regularisation", regularisation, minimum=0))

    def weights(self, points: Tensor) -> Tensor:
        """The vote weights w(x) of every training point.

        Args:
            points: shape (m, d), any float dtype.

        Returns:
            shape (m, n), float64.
        """
        points = self._with_constant(points)
        if self._dual:
            kernel = self._with_constant(self.features) @ points.T
            return torch.cholesky_solve(kernel, self._factor).T
        coefficients = torch.cholesky_solve(points.T, self._factor).T
        weights = coefficients.new_empty(len(points), len(self.features))
        for columns, rows in self._blocks():
            weights[:, columns] = coefficients @ rows.T
        return weights

    def weight_chunks(self, points: Tensor, rows: int | None = None) -> Iterator[Tensor]:
        """:meth:`weights` in chunks of ``rows`` points (default: 64 MiB), so that (m, n) never exists as a whole."""
        for chunk in torch.split(points, rows or rows_per_chunk(self.features.shape[0])):
            yield self.weights(chunk)

    def scores(self, points: Tensor, labels: Tensor, num_classes: int) -> Tensor:
        """Class scores x^T B after fitting the coefficients B to the labels: the textbook way.

        Args:
            points: shape (m, d).
            labels: shape (n,), integers in [0, K).
            num_classes: K.

        Returns:
            shape (m, K), float64; equal to the sums of :meth:`weights` over each class up to rounding.
        """
        check_labels("labels", labels, num_classes)
        one_hot = torch.nn.functional.one_hot(labels.long(), num_classes).double()
        if self._dual:
            coefficients = self._with_constant(self.features).T @ torch.cholesky_solve(one_hot, self._factor)
        else:
            moments = sum((rows.T @ one_hot[part] for part, rows in self._blocks()), torch.zeros(()))
            coefficients = torch.cholesky_solve(moments, self._factor)
        return self._with_constant(points) @ coefficients

    def _with_constant(self, points: Tensor) -> Tensor:
        """Rows in float64, of an ordinary size (the weights depend on no scale), with the constant."""
        points = points.double() if self._unit == 1 else points.double() * self._unit
        if self._constant is None:
            return points
        return torch.cat([points, points.new_full((len(points), 1), self._constant)], dim=1)

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows of X in float64 with the constant, some at a time, and where they stand."""
        size = rows_per_chunk(self.features.shape[1], budget=_BLOCK_BYTES)
        for start in range(0, len(self.features), size):
            part = slice(start, start + size)
            yield part, self._with_constant(self.features[part])

    def _cholesky(self, regularisation: float) -> Tensor:
        if self._dual:
            rows = self._with_constant(self.features)
            matrix, square = rows @ rows.T, float(rows.square().sum())
        else:
            matrix = sum((rows.T @ rows for _, rows in self._blocks()), torch.zeros(()))
            square = float(matrix.trace())
        if not math.isfinite(square):
            raise UserError(
                "features must be small enough for their squares, got a sum that overflows; scale them down"
            )
        # Features that are all zero have no scale; any strength gives the weights zero.
        strength = regularisation * (square / (self.features.shape[1] + (self._constant is not None)) or 1.0)
        self.strength = strength / self._unit / self._unit
        matrix.diagonal().add_(strength)
        if not matrix.any():
            matrix.diagonal().fill_(1.0)
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if int(failed) or not torch.isfinite(factor).all():
            raise UserError(
                f"regularisation must be larger for these features, got a strength of {self.strength:g} with a "
                "singular matrix; try regularisation=0.3"
            )
        return factor


def _root_mean_square(features: Tensor, unit: float) -> float:
    parts = torch.split(features, rows_per_chunk(features.shape[1], budget=_BLOCK_BYTES))
    squares = math.fsum(float((part.double() * unit).square().sum()) for part in parts)
    return math.sqrt(squares / features.numel()) or 1.0
