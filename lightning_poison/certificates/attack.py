"""The optimal label-flip attack on a learner that is linear in its labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.certificates.label_linear import flip_gains
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, check_labels

__all__ = ["OptimalFlips", "optimal_label_flips"]


@dataclass(frozen=True)
class OptimalFlips:
    """The fewest label changes that alter one prediction.

    Args:
        index: shape (f,), int64, ascending: which training labels to change.
        old_label: shape (f,), int64.
        new_label: shape (f,), int64.
        prediction: the class predicted before.
        new_prediction: the class predicted afterwards.
    """

    index: Tensor
    old_label: Tensor
    new_label: Tensor
    prediction: int
    new_prediction: int

    def __len__(self) -> int:
        return len(self.index)

    def apply(self, labels: Tensor) -> Tensor:
        """A copy of ``labels``, shape (n,), with the changes made; int64 where their dtype cannot hold a new label."""
        changed = labels.long().index_copy(0, self.index, self.new_label)
        return changed.to(labels.dtype) if int(changed.max()) <= torch.iinfo(labels.dtype).max else changed


def optimal_label_flips(weights: Tensor, labels: Tensor, num_classes: int) -> OptimalFlips | None:
    """Find the fewest label changes that alter one prediction: the changes of largest gain.

    By the theorem of :mod:`lightning_poison.certificates.label_linear` no fewer can do it, so their number is the
    certified radius + 1, or more where that many only reach a tie that the predicted class wins. The result is
    verified by recomputing the scores from the changed labels without rounding.

    Args:
        weights: shape (n,), any float dtype: w(x) of the attacked point.
        labels: shape (n,), integers in [0, K).
        num_classes: K.

    Returns:
        the changes, or None where no relabelling at all alters the prediction.

    Raises:
        UserError: labels out of range, or weights of another shape or not finite.

    Example:
        >>> flips = optimal_label_flips(torch.tensor([0.5, 3.0, 0.2, 1.0]), torch.tensor([0, 0, 0, 1]), num_classes=2)
        >>> flips.index.tolist(), flips.new_label.tolist(), flips.new_prediction
        ([1], [1], 1)
    """
    num_classes = check_integer("num_classes", num_classes, minimum=1)
    check_labels("labels", labels, num_classes)
    if weights.shape != labels.shape or not weights.is_floating_point():
        got = f"shape {tuple(weights.shape)}, dtype {weights.dtype}"
        raise UserError(f"weights must be a float vector, one for each of {len(labels)} labels, got {got}")
    weights, labels = check_finite("weights", weights).double(), labels.long()
    if not torch.isfinite(2 * weights.abs().sum()):
        raise UserError("weights must be finite, also when added up, got huge ones; raise the regularisation")
    prediction = _predict(weights, labels, num_classes)
    attacks = (_towards(weights, labels, num_classes, prediction, j) for j in range(num_classes) if j != prediction)
    return min((attack for attack in attacks if attack is not None), key=len, default=None)


def _towards(weights: Tensor, labels: Tensor, num_classes: int, prediction: int, rival: int) -> OptimalFlips | None:
    """Flip by falling gain until the prediction changes."""
    gains, order = flip_gains(weights, labels == prediction, labels == rival).sort(descending=True)
    useful = int((gains > 0).sum())
    margin = _score(weights, labels, prediction) - _score(weights, labels, rival)
    start = int(torch.searchsorted(gains.cumsum(0), margin - 1e-9 * weights.abs().sum().item())) if margin > 0 else 0
    for count in range(min(start, useful), useful + 1):
        index = order[:count].sort().values
        new_label = _relabelled(weights[index], labels[index], prediction, rival)
        flips = OptimalFlips(index, labels[index], new_label, prediction, -1)
        after = _predict(weights, flips.apply(labels), num_classes)
        if after != prediction:
            return OptimalFlips(index, labels[index], new_label, prediction, after)
    return None


def _relabelled(weights: Tensor, labels: Tensor, prediction: int, rival: int) -> Tensor:
    """Weight that speaks for its class goes to the rival, weight that speaks against it to the prediction."""
    return torch.where(weights > 0, torch.full_like(labels, rival), torch.full_like(labels, prediction))


def _predict(weights: Tensor, labels: Tensor, num_classes: int) -> int:
    scores = [_score(weights, labels, label) for label in range(num_classes)]
    return scores.index(max(scores))


def _score(weights: Tensor, labels: Tensor, label: int) -> float:
    return math.fsum(weights[labels == label].tolist())
