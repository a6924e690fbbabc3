"""Ridge regression on features that stay on disk: the weights that the exact certificate needs, block by block."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, check_number
from lightning_poison.functional.ridge import rows_per_chunk

__all__ = ["BlockRidge"]

_WEIGHT_BYTES = 512 * 2**20


class BlockRidge:
    r"""The learner of :class:`lightning_poison.functional.ridge.Ridge`, with memory that does not grow with n x d.

    X is read twice in blocks of rows: once for :math:`X^T X`, and once for each chunk of evaluation points, whose
    weights :math:`w(x) = X (X^T X + \lambda I)^{-1} x` fill a matrix (points of the chunk, n) of at most 512 MiB. All
    sums are float64. A million points of 512 dimensions take about 1 GiB besides what the system keeps of the file.

    Args:
        features: X, shape (n, d), any float dtype; ``torch.from_file`` or ``torch.from_numpy(numpy.load(path,
            mmap_mode="r+"))`` leave it on disk.
        regularisation: relative strength, > 0, as for ``Ridge``.
        block: rows of X held in float64 at a time.

    Raises:
        UserError: X is not a matrix of finite numbers, or X^T X + lambda I is singular.

    Example:
        >>> ridge = BlockRidge(torch.eye(2), regularisation=1.0, block=1)
        >>> [chunk.shape for chunk in ridge.weight_chunks(torch.ones(3, 2), rows=2)]
        [torch.Size([2, 2]), torch.Size([1, 2])]
    """

    def __init__(self, features: Tensor, regularisation: float = 0.3, block: int = 20_000) -> None:
        check_number("regularisation", regularisation, minimum=0)
        check_integer("block", block, minimum=1)
        if features.ndim != 2 or not features.is_floating_point() or features.numel() == 0:
            got = f"shape {tuple(features.shape)}, dtype {features.dtype}"
            raise UserError(f"features must be a non-empty float matrix (points, dimensions), got {got}; flatten them")
        self.features, self.block = features, block
        count, width = features.shape
        moments, total = torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
        for rows in torch.split(features, block):
            part = check_finite("features", rows, remedy="clean the inputs or change the feature map").double()
            moments.addmm_(part.T, part)
            total += part.sum(0)
        self._constant = float((moments.trace() / features.numel()).sqrt()) or 1.0
        last = torch.cat([self._constant * total, total.new_tensor([count * self._constant**2])])
        matrix = torch.cat([torch.cat([moments, last[None, :-1]]), last[:, None]], dim=1)
        trace = matrix.trace()
        matrix.diagonal().add_(regularisation * trace / (width + 1))
        self._factor, failed = torch.linalg.cholesky_ex(matrix)
        if int(failed) or not torch.isfinite(self._factor).all():
            raise UserError(
                f"regularisation must be larger for these features, got {regularisation:g} with a singular matrix; "
                "try 0.3"
            )

    def weight_chunks(self, points: Tensor, rows: int | None = None) -> Iterator[Tensor]:
        """The vote weights of all training points, in chunks (m', n), float64.

        Args:
            points: shape (m, d), any float dtype.
            rows: m'; None: as many as fit in 512 MiB.
        """
        for chunk in torch.split(points, rows or rows_per_chunk(len(self.features), budget=_WEIGHT_BYTES)):
            solved = torch.cholesky_solve(self._with_constant(chunk).T, self._factor)
            weights = torch.empty(len(chunk), len(self.features), dtype=torch.float64)
            first = 0
            for part in torch.split(self.features, self.block):
                weights[:, first : first + len(part)] = (self._with_constant(part) @ solved).T
                first += len(part)
            yield weights

    def _with_constant(self, points: Tensor) -> Tensor:
        return torch.nn.functional.pad(points.double(), (0, 1), value=self._constant)
