"""The certified-accuracy curve, counted batch by batch and rank by rank."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_number

__all__ = ["CertifiedAccuracy"]


class CertifiedAccuracy(Metric):
    """Share of samples that are classified as their label and certified at least as far as each given radius.

    The counts are integers, so that any number of batches and ranks gives the same curve to the last bit. A sample on
    which the certified classifier abstains (radius -1) counts as wrong at every radius.

    Args:
        radii: the radii r of the curve, finite and not negative: changed labels, or l2 pixels for input smoothing.

    Raises:
        UserError: there is no radius, or one is negative.

    Example:
        >>> metric = CertifiedAccuracy(radii=[0, 3])
        >>> metric.update(torch.tensor([0, 1, 1]), torch.tensor([5, 2, 9]), torch.tensor([0, 1, 0]))
        >>> metric.compute()
        tensor([0.6667, 0.3333], dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    counts: Tensor
    total: Tensor

    def __init__(self, radii: Sequence[float]) -> None:
        super().__init__()
        if not len(radii):
            raise UserError("radii must hold at least one radius, got none; pass [0] for the natural accuracy")
        self.radii = [check_number("radii", radius, minimum=0) for radius in radii]
        self.add_state("counts", torch.zeros(len(self.radii), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, radius: Tensor, labels: Tensor) -> None:
        """Add samples.

        Args:
            prediction: shape (m,), integers.
            radius: shape (m,), any number type; -1 where the classifier abstains.
            labels: shape (m,), integers: the clean labels.

        Raises:
            UserError: the shapes differ.
        """
        if not prediction.shape == radius.shape == labels.shape:
            got = f"{tuple(prediction.shape)}, {tuple(radius.shape)} and {tuple(labels.shape)}"
            raise UserError(f"prediction, radius and labels must have one shape, got {got}")
        reached = radius.double()[:, None] >= torch.tensor(self.radii, dtype=torch.float64, device=radius.device)
        self.counts += ((prediction.long() == labels.long())[:, None] & reached).sum(dim=0)
        self.total += labels.numel()

    def compute(self) -> Tensor:
        """Return the shares, shape (number of radii,), a scalar for one; float64; NaN before any sample was seen."""
        return self.counts.double() / self.total
