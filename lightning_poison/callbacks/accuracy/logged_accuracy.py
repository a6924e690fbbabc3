"""Whether the function that is attacked is the one whose accuracy the module logs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["NaturalAccuracies", "disagreement", "logged_accuracies"]

_STAGES = {"val": {"val", "valid", "validation"}, "test": {"test", "testing"}}
# Accuracies of another kind, of other data, of other weights, or of another time.
_OTHERS = re.compile(
    r"bal|balanced|class|per|f|macro|weighted|adv|adversarial|robust|robustness|attack|attacked|pgd|fgsm|aa|cw|"
    r"autoattack|cert|certified|poison|poisoned|smooth|smoothed|noise|noisy|corrupt|corrupted|train|training|"
    r"best|max|min|step|ema|swa|ensemble|loss|error|err|[02-9]|\d\d+"
)
_TOLERANCE, _ERRORS = 0.02, 3


class NaturalAccuracies:
    """The accuracies without an attack, by every way of counting that a project may have, of one rank's samples.

    Example:
        >>> counted = NaturalAccuracies()
        >>> counted.update(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 0]), 2)
        >>> counted.update(torch.tensor([1, 1]), torch.tensor([1, 1]), 2)
        >>> [round(value, 3) for value in counted.values()]  # of samples, of batches, of classes, of batches' classes
        [0.833, 0.875, 0.833, 0.667, 0.75]
    """

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._right: list[Tensor] = []
        self._of_classes: list[Tensor] = []
        self._by_class: Tensor | None = None

    def update(self, labels: Tensor, predictions: Tensor, num_classes: int) -> None:
        """Add a batch.

        Args:
            labels: shape (n,), int64.
            predictions: shape (n,), int64.
            num_classes: K, more than every label and prediction.
        """
        right = labels == predictions
        counts = torch.zeros(3, num_classes, dtype=torch.int64, device=labels.device)
        ones = torch.ones_like(labels)
        for row, (classes, weight) in enumerate(((labels, ones), (labels, right.long()), (predictions, ones))):
            counts[row].scatter_add_(0, classes, weight)
        self._sizes.append(len(labels))
        self._right.append(right.sum())
        self._of_classes.append(_mean_of_classes(counts))
        self._by_class = counts if self._by_class is None else self._by_class + counts

    def values(self) -> list[float]:
        """The share of all samples, its mean over batches, the mean over classes, and that over batches, two ways."""
        if self._by_class is None:
            return []
        sizes = torch.tensor(self._sizes, dtype=torch.float64)
        right = torch.stack(self._right).cpu().double()
        of_classes = torch.stack(self._of_classes).cpu()
        values = [
            right.sum() / sizes.sum(),
            (right / sizes).mean(),
            _mean_of_classes(self._by_class).cpu(),
            (of_classes * sizes).sum() / sizes.sum(),
            of_classes.mean(),
        ]
        return [float(value) for value in values]

    @property
    def samples(self) -> int:
        """How many samples they are of."""
        return sum(self._sizes)


def _mean_of_classes(counts: Tensor) -> Tensor:
    """The mean share of right predictions, over the classes that are labels or predicted, as torchmetrics has it."""
    count, right, predicted = counts.float().unbind()
    present = (count + predicted) > 0
    return (right / count.clamp_min(1))[present].mean().double()


def logged_accuracies(metrics: Mapping[str, Any], split: str) -> dict[str, float]:
    """What looks like the module's own top-1 accuracy on a split, as logged: a share or per cent.

    Args:
        metrics: of the Trainer.
        split: "val" or "test".

    Example:
        >>> metrics = {"val_acc": 0.9, "val/adv_acc": 0.1, "valTop5Acc": 0.99, "train_acc": 1.0, "val_loss": 0.3}
        >>> logged_accuracies(metrics, "val")
        {'val_acc': 0.9}
    """
    found = {}
    for key, value in metrics.items():
        words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", str(key))]
        if not {"acc", "accuracy"} & set(words) or not _STAGES[split] & set(words):
            continue
        if any(_OTHERS.fullmatch(word) for word in words):
            continue
        number = _as_number(value)
        if number is not None and 0 <= number <= 100:
            found[str(key)] = number
    return found


def _as_number(value: Any) -> float | None:
    if isinstance(value, Tensor) and value.numel() != 1:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        return None
    return number if math.isfinite(number) else None


def disagreement(logged: Mapping[str, float], counted: Sequence[float], samples: int) -> str | None:
    """A sentence where none of the accuracies that a module logs is that of its forward; None where one is.

    They may differ by 0.02 and three standard errors of a share, since others count on one rank, or average otherwise.

    Args:
        logged: by key, see :func:`logged_accuracies`.
        counted: what it may be, such as :meth:`NaturalAccuracies.values`; the first is shown.
        samples: how many were counted on one rank.

    Example:
        >>> disagreement({"val_acc": 0.967}, [0.893], 10_000).split(", so")[0]
        'the module logs val_acc 0.967, but its forward is right on 0.893 of the samples'
        >>> disagreement({"val_acc": 89.5}, [0.893], 10_000) is None
        True
    """
    if not counted or not samples or not logged:
        return None
    share = counted[0]
    tolerance = _TOLERANCE + _ERRORS * math.sqrt(share * (1 - share) / samples)
    for value in logged.values():
        if any(abs(reading - own) <= tolerance for reading in (value, value / 100) for own in counted):
            return None
    shown = ", ".join(f"{key} {value:.4g}" for key, value in logged.items())
    return (
        f"the module logs {shown}, but its forward is right on {share:.4g} of the samples, so what is attacked isn't "
        "what the module's own step evaluates; do within forward what the step does beside it (normalisation of the "
        "batch, averaged weights, several views), or log the share of right predictions if it is another kind of "
        "accuracy"
    )
