"""What a poisoning strategy may look at."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer, check_labels
from lightning_poison.functional.progress import Progress, no_progress
from lightning_poison.poisons.reading import read_inputs

__all__ = ["TrainingSet"]

_Value = TypeVar("_Value")


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The clean training data as a strategy sees it.

    Args:
        labels: shape (n,), integers: the clean labels; they become int64, which holds a new class.
        num_classes: K; labels lie in [0, K - 1].
        fingerprint: identifies the data, so that a flip list is never applied to other data; empty: unknown.
        dataset: map-style data set whose item i is (input, label, ...); None where a strategy needs labels only.
        network: a network trained on these data without flips, mapping (N, ...) to logits (N, K); None: a strategy that
            needs one trains its own.
        progress: shows how far a long computation is.

    Raises:
        UserError: the labels are no vector of integers in [0, K - 1].

    Example:
        >>> import torch
        >>> data = [(torch.tensor([0.5]), 0), (torch.tensor([0.25]), 1)]
        >>> training_set = TrainingSet(torch.tensor([0, 1]), num_classes=2, dataset=data)
        >>> training_set.num_points, training_set.inputs.tolist()
        (2, [[0.5], [0.25]])
    """

    labels: Tensor
    num_classes: int
    fingerprint: str = ""
    dataset: Any = field(default=None, repr=False)
    network: nn.Module | None = field(default=None, repr=False)
    progress: Progress = field(default=no_progress, repr=False)
    _remembered: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_integer("num_classes", self.num_classes, minimum=1)
        object.__setattr__(self, "labels", check_labels("labels", self.labels, self.num_classes).long())

    @property
    def num_points(self) -> int:
        """Number of training points, n."""
        return self.labels.numel()

    @property
    def inputs(self) -> Tensor:
        """The inputs, shape (n, ...), float32, on the CPU; read once. They are shared: never change them in place.

        Raises:
            UserError: there is no data set, or its inputs are no tensors of one shape.
        """
        if self.dataset is None:
            raise UserError("this strategy looks at the inputs, got labels only; pass TrainingSet(..., dataset=...)")
        return self.remembered("inputs", lambda: read_inputs(self.dataset, self.progress))

    def remembered(self, key: Hashable, make: Callable[[], _Value]) -> _Value:
        """What ``make`` gave when ``key`` was first asked for, so that several strategies share a costly result.

        Args:
            key: names the result and everything that it depends on besides the data.
            make: computes it.
        """
        if key not in self._remembered:
            self._remembered[key] = make()
        return cast("_Value", self._remembered[key])
