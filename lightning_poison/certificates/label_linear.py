r"""The exact certificate of every learner that is linear in its labels, and the attack that shows it is exact.

**Learner.** A point x gets weights w_1(x), ..., w_n(x) that see no label, one for each training point. The score of
class c is :math:`s_c = \sum_{i: y_i = c} w_i`, the prediction the class of the largest score, the lowest index among
equals. Ridge regression, kernel ridge, nearest-neighbour votes and cluster votes are of this form.

**Adversary.** Knows everything, and replaces up to r of the n training labels by any of the K classes.

**Theorem.** Let c be the prediction and j a rival. The most that changing label y_i alone can take off the margin
:math:`s_c - s_j` is its gain

=============  ===========================  =====================
label y_i      gain :math:`g_{ij}`          by changing it to
=============  ===========================  =====================
c              :math:`2 \max(w_i, 0)`       j
j              :math:`2 \max(-w_i, 0)`      c
another        :math:`|w_i|`                j if w_i > 0, else c
=============  ===========================  =====================

Let f_j be the smallest k for which the k largest gains add up to at least :math:`s_c - s_j`, or infinity. Then no
:math:`\min_j f_j - 1` changes alter the prediction, and f_j changes bring j at least level with c.

**Proof.** The margin is a sum over training points in which label y_i appears in the i-th term only: w_i if y_i = c,
-w_i if y_i = j, else 0. So the terms change independently, what changed labels take off adds up, and going through
the K values of y_i gives the table. r changes take off at most the sum of the r largest gains, and exactly that when
they are the changes of the table. For r < f_j that is less than the margin: :math:`s_c > s_j` stays. With r below
every f_j no rival reaches c. QED.

A tie counts against us. Without one (the sum exceeds the margin) f_j changes make j beat c, so the radius is exact.
Where no sum reaches a margin, as with one class, the radius is n.

**Rounding.** The weights are taken as the exact numbers that they are. In any order, a float64 sum of n terms errs by
at most :math:`\gamma_n \sum |w_i|`, where :math:`\gamma_n = n u / (1 - n u)` and :math:`u = 2^{-53}` (Higham, 2002,
section 4.2). The two scores err by that much together, the sum of gains by twice as much, their difference by u; in
total by less than :math:`8 n u \sum |w_i|`, which is taken off every margin first. So rounding can make the radius too
small, never too large.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_finite, check_integer, check_labels
from lightning_poison.functional.ridge import rows_per_chunk

__all__ = [
    "LabelFlipCertificate",
    "OptimalFlips",
    "certify_label_linear",
    "flip_gains",
    "optimal_label_flips",
    "score_slack",
]

_FIRST_SIZE = 1024
_GROWTH = 4
_BLOCK_BYTES = 8 * 2**20  # what a cache holds and an allocator hands out again without asking the system


@dataclass(frozen=True)
class LabelFlipCertificate:
    """Predictions with the number of training labels that may change without changing them.

    Args:
        prediction: shape (m,), int64.
        radius: shape (m,), int64: after any change of at most so many training labels the prediction is the same.
    """

    prediction: Tensor
    radius: Tensor

    def __len__(self) -> int:
        return len(self.prediction)


def certify_label_linear(weights: Tensor | Iterable[Tensor], labels: Tensor, num_classes: int) -> LabelFlipCertificate:
    """Certify the predictions of a learner that is linear in its labels, exactly.

    The theorem and its proof stand at the head of this module. Cost per point: one selection of the largest weights,
    shared by all rivals, instead of a sort for each rival; rivals that cannot be the nearest are never looked at.

    Args:
        weights: shape (m, n), any float dtype: row x holds w(x). Or an iterable of such chunks, so that the whole
            matrix never exists; the chunks' points follow each other.
        labels: shape (n,), integers in [0, K).
        num_classes: K: every class that an adversary may write, also one that no training point has.

    Raises:
        UserError: labels out of range, weights of another shape, or not finite.

    Example:
        >>> certify_label_linear(torch.ones(1, 5), torch.tensor([0, 0, 0, 0, 1]), num_classes=2)
        LabelFlipCertificate(prediction=tensor([0]), radius=tensor([1]))
    """
    num_classes = check_integer("num_classes", num_classes, minimum=1)
    if not len(check_labels("labels", labels, num_classes)):
        raise UserError("labels must hold at least one training label, got none; check the training data")
    labels = labels.long()  # small integers would wrap the class numbers that they are compared with
    if isinstance(weights, Tensor):
        weights = [weights]
    predictions, radii, size = [], [], _FIRST_SIZE
    for chunk in weights:
        for block in torch.split(_checked(chunk, labels), rows_per_chunk(len(labels), budget=_BLOCK_BYTES)):
            prediction, radius, size = _certify_block(block, labels.to(block.device), num_classes, size)
            predictions.append(prediction)
            radii.append(radius)
    empty = torch.empty(0, dtype=torch.int64)
    return LabelFlipCertificate(torch.cat(predictions or [empty]), torch.cat(radii or [empty]))


def flip_gains(weights: Tensor, of_prediction: Tensor, of_rival: Tensor) -> Tensor:
    """What changing each label can take off the margin of the prediction over a rival (the table of the theorem).

    Args:
        weights: shape (..., n), float64.
        of_prediction: bool, broadcastable: the label is the predicted class.
        of_rival: bool, broadcastable: the label is the rival.

    Returns:
        shape (..., n), float64, >= 0.
    """
    own = 2 * weights.clamp(min=0)
    rival = 2 * (-weights).clamp(min=0)
    return torch.where(of_prediction, own, torch.where(of_rival, rival, weights.abs()))


def score_slack(weights: Tensor) -> Tensor:
    """Bound on all rounding errors between the weights and a comparison of gains with a margin.

    Args:
        weights: shape (m, n), float64.

    Returns:
        shape (m,), float64.
    """
    size: Tensor = torch.linalg.vector_norm(weights, ord=1, dim=1)
    return 4 * weights.shape[1] * torch.finfo(torch.float64).eps * size


def _checked(weights: Tensor, labels: Tensor) -> Tensor:
    if weights.ndim != 2 or weights.shape[1] != len(labels) or not weights.is_floating_point():
        got = f"shape {tuple(weights.shape)}, dtype {weights.dtype}"
        raise UserError(f"weights must be a float matrix (points, {len(labels)} training labels), got {got}")
    return weights.double()


def _certify_block(weights: Tensor, labels: Tensor, num_classes: int, size: int) -> tuple[Tensor, Tensor, int]:
    """Predictions and radii of a block, and how many of the largest gains its points needed."""
    n = weights.shape[1]
    scores = weights @ torch.nn.functional.one_hot(labels, num_classes).double()
    slack = score_slack(weights)
    # Gains are up to twice as large as weights, and a comparison with an infinite one would prove nothing.
    if not torch.isfinite(2 * weights.abs().sum(dim=1)).all():
        raise UserError("weights must be finite, got NaN, infinite or huge entries; raise the regularisation")
    prediction = scores.argmax(1)
    margins = scores.gather(1, prediction[:, None]) - scores - slack[:, None]
    margins.scatter_(1, prediction[:, None], torch.inf)
    nearest, rivals = margins.sort(dim=1)
    bounds = _gain_bounds(weights, labels == prediction[:, None])
    problem = _Problem(weights, bounds, prediction, rivals[:, :-1], nearest[:, :-1])
    fewest = torch.full_like(prediction, n + 1)
    todo = torch.arange(len(weights), device=weights.device)
    size = next_size = min(size, n)
    while num_classes > 1 and len(todo) > 0:
        fewest[todo], exact = _fewest_flips(problem, labels, size)
        todo, problem = todo[~exact], problem.rows(~exact)
        size = min(size * _GROWTH, n)
        if 2 * len(todo) > len(weights):
            next_size = size
    return prediction, (fewest - 1).clamp(min=0), next_size


@dataclass(frozen=True)
class _Problem:
    """Points of a chunk: weights and gain bounds (m, n), predictions (m,), rivals by growing margin (m, K - 1)."""

    weights: Tensor
    bounds: Tensor
    prediction: Tensor
    rivals: Tensor
    margins: Tensor

    def rows(self, kept: Tensor) -> _Problem:
        return _Problem(*(part[kept] for part in vars(self).values()))


def _gain_bounds(weights: Tensor, own: Tensor) -> Tensor:
    """For each label the largest gain against any rival."""
    bounds = (-2 * weights).masked_fill_(own, 0)
    torch.maximum(bounds, weights, out=bounds)
    bounds.add_(bounds * own)
    return bounds


def _fewest_flips(problem: _Problem, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Smallest f_j over rivals, and whether the ``size`` labels of the largest bounds sufficed to know it.

    A label outside the selection has a bound, so a gain against any rival, of at most the smallest bound inside. Hence
    gains from that value up, sorted, are the largest of all labels.

    Rivals come by growing margin. The sum of the k largest bounds limits that of the k largest gains, so a rival whose
    margin needs more bounds than the best rival so far needs gains is out, and so is every later one. Where both are
    equal the rival cannot improve on the best one either, as f_j is no less than what the bounds need: to look at it
    would cost time and change no radius. A margin of at most 0 counts as one bound; the nearest rival is looked at all
    the same, as n + 1 is more than 1, and the radius is 0 for f_j = 0 and 1 alike.
    """
    n, prediction, rivals, margins = len(labels), problem.prediction, problem.rivals, problem.margins
    top, index = problem.bounds.topk(size, dim=1)
    complete_from = top[:, -1] if size < n else torch.full_like(top[:, -1], -torch.inf)
    at_least = torch.searchsorted(top.cumsum(1), margins.contiguous()) + 1
    weights, labels = problem.weights.gather(1, index), labels[index]
    fewest = torch.full_like(prediction, n + 1)
    exact = torch.ones_like(prediction, dtype=torch.bool)
    for rank in range(rivals.shape[1]):
        rows = (at_least[:, rank] < fewest).nonzero()[:, 0]
        if len(rows) == 0:
            break
        found, known = _crossing(
            weights[rows],
            labels[rows],
            prediction[rows],
            rivals[rows, rank],
            margins[rows, rank],
            complete_from[rows],
        )
        fewest[rows] = torch.minimum(fewest[rows], found)
        exact[rows] &= known
    return fewest, exact


def _crossing(
    weights: Tensor, labels: Tensor, prediction: Tensor, rival: Tensor, margin: Tensor, complete_from: Tensor
) -> tuple[Tensor, Tensor]:
    """f_j of one rival a row from selected labels, and whether it is certain.

    It is where no gain in use is below ``complete_from``; equality will do, as a label outside the selection has no
    larger gain, and a demand for more would only select more labels for the same answer. Where all gains together do
    not reach the margin, f_j is certain once all n labels are selected, and n + 1 stands for infinity.
    """
    gains = flip_gains(weights, labels == prediction[:, None], labels == rival[:, None])
    gains = gains.sort(dim=1, descending=True).values
    below = torch.searchsorted(gains.cumsum(1), margin[:, None])[:, 0]
    size = gains.shape[1]
    smallest_used = gains.gather(1, below.clamp(max=size - 1)[:, None])[:, 0]
    known = torch.where(below < size, smallest_used >= complete_from, complete_from == -torch.inf)
    none_needed = margin <= 0
    return torch.where(none_needed, 0, below + 1), known | none_needed


# --- the optimal attack -----------------------------------------------------------------------------------------------


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

    By the theorem at the head of this module no fewer can do it, so their number is the
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
