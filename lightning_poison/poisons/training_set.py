"""What a poisoning strategy may look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lightning_poison.functional.checks import check_integer, check_labels

__all__ = ["TrainingSet"]


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The clean training data as a strategy sees it.

    Args:
        labels: shape (n,), int64: the clean labels.
        num_classes: K; labels lie in [0, K - 1].
        fingerprint: identifies the data, so that a flip list is never applied to other data; empty: unknown.
        dataset: map-style data set whose item i is (input, label, ...); None where a strategy needs labels only.

    Raises:
        UserError: the labels are no vector of integers in [0, K - 1].

    Example:
        >>> import torch
        >>> TrainingSet(torch.tensor([0, 2, 1]), num_classes=3).num_points
        3
    """

    labels: Tensor
    num_classes: int
    fingerprint: str = ""
    dataset: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_integer("num_classes", self.num_classes, minimum=1)
        check_labels("labels", self.labels, self.num_classes)

    @property
    def num_points(self) -> int:
        """Number of training points, n."""
        return self.labels.numel()
