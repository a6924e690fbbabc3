r"""One certification shared by several processes, each with a part of the training points.

Training points are cut into :data:`SLABS` slabs that do not depend on the number of processes, and each process holds
some of them. Whatever is needed of all points is a sum (or a maximum) over slabs: second moments for the ridge, sums of
weights, and the sums of :class:`Margins`. Each process computes the terms of its slabs and leaves the others zero;
terms are all-reduced and then added up in the order of the slabs. Adding zeros is exact, so that every process of any
number of processes has the same sums, to the last bit, as one process with all slabs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, distributed

from lightning_poison.certificates.smoothing.algorithm1 import (
    Coding,
    SmoothedPrediction,
    Tail,
    predict_smoothed,
)
from lightning_poison.certificates.smoothing.margins import Margins, Moments
from lightning_poison.certificates.smoothing.votes import DenseVotes, Pair, Votes
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_number
from lightning_poison.functional.ridge import rows_per_chunk

__all__ = ["SLABS", "own_slabs", "slab_bounds", "smoothed_ridge_on_shards"]

SLABS = 16
_BLOCK_BYTES = 64 * 2**20
_CHUNK_BYTES = 512 * 2**20


def slab_bounds(num_points: int) -> list[tuple[int, int]]:
    """Where the slabs of ``num_points`` training points start and stop.

    Example:
        >>> slab_bounds(40)[:3]
        [(0, 2), (2, 5), (5, 7)]
    """
    cuts = [num_points * slab // SLABS for slab in range(SLABS + 1)]
    return list(pairwise(cuts))


def own_slabs() -> range:
    """The slabs of this process: consecutive ones, all without a process group."""
    rank, size = (distributed.get_rank(), distributed.get_world_size()) if _many() else (0, 1)
    return range(SLABS * rank // size, SLABS * (rank + 1) // size)


def smoothed_ridge_on_shards(
    features: Sequence[Tensor],
    labels: Sequence[Tensor],
    points: Tensor,
    q: float,
    num_classes: int = 2,
    regularisation: float = 1.0,
    coding: Coding = "signs",
    tail: Tail = "berry_esseen",
) -> SmoothedPrediction:
    """Smoothed ridge regression (no intercept) whose training points are spread over the processes of the group.

    Args:
        features: of the training points of this process's slabs (:func:`own_slabs`), each (n', d), any float dtype;
            they are read in blocks and may be mapped from disk.
        labels: of the same, each (n',).
        points: shape (m, d), the same on every process.
        q: probability with which each label is flipped.
        num_classes: K.
        regularisation: relative strength, as in :class:`lightning_poison.functional.ridge.Ridge`.
        coding: see :func:`smoothed_predictions`.
        tail: "chernoff" or "berry_esseen".

    Returns:
        the same on every process.

    Raises:
        UserError: not one tensor a slab, or a singular matrix.
    """
    regularisation = check_number("regularisation", regularisation, minimum=0)
    if not own_slabs():
        raise UserError(f"the process group must have at most {SLABS} processes, got {distributed.get_world_size()}")
    if len(features) != len(own_slabs()) or len(labels) != len(features):
        got = f"{len(features)} features and {len(labels)} labels for {len(own_slabs())} slabs"
        raise UserError(f"features and labels must come slab by slab, got {got}; cut them with slab_bounds")
    moments = _over_slabs([_second_moments(part) for part in features]).sum(0)
    strength = regularisation * (float(moments.trace()) / len(moments) or 1.0)
    factor, failed = torch.linalg.cholesky_ex(moments + strength * torch.eye(len(moments)).to(moments))
    if int(failed) or not torch.isfinite(factor).all():
        raise UserError(f"regularisation must be larger for these features, got {regularisation:g}; try 1.0")
    num_points = int(_over_slabs([torch.tensor(len(part), dtype=torch.float64) for part in labels]).sum())
    orders = [part.long().argsort(stable=True) for part in labels]
    counts = [torch.bincount(part.long(), minlength=num_classes).tolist() for part in labels]
    predictions = []
    for chunk in torch.split(points.double(), rows_per_chunk(num_points, budget=_CHUNK_BYTES)):
        coefficients = torch.cholesky_solve(chunk.T, factor).T
        slabs = [
            DenseVotes(_weights(coefficients, part, order), count)
            for part, order, count in zip(features, orders, counts, strict=True)
        ]
        predictions.append(predict_smoothed(_SlabVotes(slabs, num_points), q, num_classes, coding, tail))
    return SmoothedPrediction(
        torch.cat([part.prediction for part in predictions]), torch.cat([part.log_error for part in predictions])
    )


@dataclass(frozen=True)
class _SlabVotes(Votes):
    """Votes whose columns are spread over processes."""

    slabs: Sequence[DenseVotes]
    total_points: int

    @property
    def num_points(self) -> int:
        return self.total_points

    def class_sums(self) -> Tensor:
        return _over_slabs([slab.class_sums() for slab in self.slabs]).sum(0)

    def size(self) -> Tensor:
        return _over_slabs([slab.size() for slab in self.slabs]).sum(0)

    def margins(self, pair: Pair, rows: Tensor, offset: Tensor, offset_error: Tensor) -> Margins:
        # The offset is a constant: the first slab's.
        parts: list[Margins] = []
        for number, slab in zip(own_slabs(), self.slabs, strict=True):
            share = 1.0 if number == 0 else 0.0
            parts.append(slab.margins(pair, rows, share * offset, share * offset_error))
        return _SlabMargins(parts)


@dataclass(frozen=True)
class _SlabMargins(Margins):
    """Margins whose sums are added up over processes."""

    parts: Sequence[Margins]

    def largest(self) -> Tensor:
        return _over_slabs([part.largest() for part in self.parts]).amax(0)

    def slopes(self, tilt: Tensor, sample: int | None = None) -> Tensor:
        share = None if sample is None else max(sample // SLABS, 1)
        return self._sum(lambda part: part.slopes(tilt, share))

    def log_mgf(self, tilt: Tensor) -> Tensor:
        return self._sum(lambda part: part.log_mgf(tilt))

    def moments(self, tilt: Tensor) -> Moments:
        columns = self._sum(lambda part: torch.stack(list(vars(part.moments(tilt)).values())))
        return Moments(*columns)

    def _sum(self, compute: Callable[[Margins], Tensor]) -> Tensor:
        return _over_slabs([compute(part) for part in self.parts]).sum(0)


def _many() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _over_slabs(own: Sequence[Tensor]) -> Tensor:
    """The terms of every slab, (SLABS, ...) float64, on every process; a term that is not here is zero."""
    terms = own[0].new_zeros(SLABS, *own[0].shape, dtype=torch.float64)
    for slab, term in zip(own_slabs(), own, strict=True):
        terms[slab] = term
    if _many():
        distributed.all_reduce(terms)
    return terms


def _second_moments(features: Tensor) -> Tensor:
    blocks = torch.split(features, rows_per_chunk(features.shape[1], budget=_BLOCK_BYTES))
    nothing = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64)
    return sum((block.double().T @ block.double() for block in blocks), nothing)


def _weights(coefficients: Tensor, features: Tensor, order: Tensor) -> Tensor:
    """Weights over the points of a slab, moved into the order of their labels (which they must not be computed in)."""
    weights = coefficients.new_empty(len(coefficients), len(features))
    size = rows_per_chunk(features.shape[1], budget=_BLOCK_BYTES)
    for start in range(0, len(features), size):
        weights[:, start : start + size] = coefficients @ features[start : start + size].double().T
    return weights.index_select(1, order)
