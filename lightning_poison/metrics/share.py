"""The exact share of samples for which something is true."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["Share"]


class Share(Metric):
    """Share of true among all samples seen, with integer states that add up over ranks.

    ``compute`` returns a float64 scalar in [0, 1], NaN before any sample was seen.

    Example:
        >>> share = Share()
        >>> share.update(torch.tensor([True, False, True, True]))
        >>> share.compute().item()
        0.75
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    true: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("true", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, truths: Tensor) -> None:
        """Add samples.

        Args:
            truths: bool, any shape.
        """
        self.true += truths.sum()
        self.total += truths.numel()

    def compute(self) -> Tensor:
        """Return true / total as a float64 scalar."""
        return self.true.double() / self.total
