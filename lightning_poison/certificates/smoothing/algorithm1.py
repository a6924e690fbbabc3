r"""Smoothed predictions, with upper bounds on the probability of any other prediction (Rosenfeld et al., 2020).

**Learner.** A point x gets weights :math:`\alpha_1(x), ..., \alpha_n(x)` that see no label, such as those of ridge
regression. Training labels are redrawn at random: each is kept with probability 1 - q, and replaced by each of the K -
1 other classes with probability q / (K - 1). The smoothed prediction is the class that the vote of the redrawn labels
gives most often. No label is ever drawn: the probability of other outcomes is bounded analytically.

**Two classes.** The margin is :math:`D = b + \sum_i \alpha_i s_i` with labels :math:`s_i = \pm 1`. With the coding
"signs" b = 0: the vote is :math:`\alpha^T y` against 0 for y in {-1, +1}. With "zero_one" it is :math:`\alpha^T y`
against 1/2 for y in {0, 1}, as in the paper; :math:`2 (\alpha^T y - 1/2) = D` with :math:`b = \sum_i \alpha_i - 1`. The
prediction is 1 if the expected margin is at least 0 (the sign of Algorithm 1's t*), else 0.

**More classes.** The prediction c is the class of the largest expected score :math:`\sum_{i: y_i = c} \alpha_i`. Any
other outcome needs a margin over some rival that is not positive, so the bounds over the rivals are added up (union
bound). With eq. 22 to 24 alone, the worst pair, the paper certifies pairwise wins; this certifies the most likely
class.

**What follows.** If the bound is below log(1/2), c has a probability above 1/2 and is the smoothed prediction. If not,
nothing is known, and only 0 changed labels are certified, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_poison.certificates.smoothing.audit import audit
from lightning_poison.certificates.smoothing.chernoff import berry_esseen, chernoff
from lightning_poison.certificates.smoothing.dense import Margins
from lightning_poison.certificates.smoothing.margins import EPS, noise_of_others, noise_of_own
from lightning_poison.certificates.smoothing.thresholds import FlipNoise
from lightning_poison.certificates.smoothing.votes import Pair, Votes
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_labels
from lightning_poison.functional.ridge import rows_per_chunk

__all__ = ["CODINGS", "TAILS", "Coding", "SmoothedPrediction", "Tail", "predict_smoothed", "smoothed_predictions"]

Coding = Literal["signs", "zero_one"]
Tail = Literal["chernoff", "berry_esseen", "audit"]

CODINGS: tuple[Coding, ...] = ("signs", "zero_one")
TAILS: dict[str, Callable[[Margins, Tensor], Tensor]] = {
    "chernoff": chernoff,
    "berry_esseen": berry_esseen,
    "audit": audit,
}

_BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class SmoothedPrediction:
    """Predictions of m points with what may speak against them.

    Args:
        prediction: shape (m,), int64.
        log_error: shape (m,), float64: at least the logarithm of the probability that the vote of randomly redrawn
            labels gives anything else.
    """

    prediction: Tensor
    log_error: Tensor

    def __len__(self) -> int:
        return len(self.prediction)


def smoothed_predictions(
    weights: Tensor | Iterable[Tensor],
    labels: Tensor,
    q: float,
    num_classes: int = 2,
    coding: Coding = "signs",
    tail: Tail = "chernoff",
) -> SmoothedPrediction:
    """Algorithm 1 without its last line: predictions and bounds on the probability of any other.

    Args:
        weights: shape (m, n), any float dtype, or chunks of rows that follow each other.
        labels: shape (n,), integers in [0, K). Labels in the order of their classes save a copy of the weights.
        q: probability with which each label is flipped, in (0, 1 - 1/K).
        num_classes: K >= 2.
        coding: "signs" or, with two classes, "zero_one".
        tail: "chernoff", "berry_esseen" or "audit", in the order of their sharpness and cost.

    Raises:
        UserError: an argument is out of its range, or weights are not finite.

    Example:
        >>> weights = torch.tensor([[0.1, 0.1, 0.1, 0.2, 0.1]])
        >>> smoothed_predictions(weights, torch.tensor([1, 1, 1, 1, 0]), q=0.01)
        SmoothedPrediction(prediction=tensor([1]), log_error=tensor([-3.8...], dtype=torch.float64))
    """
    FlipNoise(q, num_classes)
    order = check_labels("labels", labels, num_classes).long().argsort(stable=True)
    counts = torch.bincount(labels.long(), minlength=num_classes).tolist()
    is_sorted = bool((order[1:] > order[:-1]).all())
    parts = []
    for block in _blocks([weights] if isinstance(weights, Tensor) else weights, len(labels)):
        columns = block if is_sorted else block[:, order.to(block.device)]
        parts.append(predict_smoothed(Votes(columns, counts), q, num_classes, coding, tail))
    empty = torch.empty(0)
    return SmoothedPrediction(
        torch.cat([part.prediction for part in parts] or [empty.long()]),
        torch.cat([part.log_error for part in parts] or [empty.double()]),
    )


def predict_smoothed(
    votes: Votes, q: float, num_classes: int, coding: Coding = "signs", tail: Tail = "chernoff"
) -> SmoothedPrediction:
    """:func:`smoothed_predictions` of the points of one :class:`Votes`."""
    check_choice("coding", coding, CODINGS)
    check_choice("tail", tail, TAILS)
    if not torch.isfinite(2 * votes.size()).all():
        raise UserError("weights must be finite, got NaN, infinite or huge entries; raise the regularisation")
    if num_classes == 2:
        return _binary(votes, q, coding, tail)
    if coding != "signs":
        raise UserError(f"coding must be signs with more than two classes, got {coding} with {num_classes}")
    return _multiclass(votes, q, num_classes, tail)


def _binary(votes: Votes, q: float, coding: Coding, tail: Tail) -> SmoothedPrediction:
    sums, size = votes.class_sums(), votes.size()
    offset, offset_error = torch.zeros_like(size), torch.zeros_like(size)
    if coding == "zero_one":
        offset = sums.sum(1) - 1
        offset_error = 2 * (votes.num_points + 4) * EPS * (size + 1)
    prediction = ((1 - 2 * q) * (sums[:, 1] - sums[:, 0]) + offset >= 0).long()
    own = noise_of_own(q, 2)
    margins = votes.margins(Pair(1, 0, own, own), torch.arange(len(size)), offset, offset_error)
    return SmoothedPrediction(prediction.cpu(), TAILS[tail](margins, 2.0 * prediction - 1).cpu())


def _multiclass(votes: Votes, q: float, num_classes: int, tail: Tail) -> SmoothedPrediction:
    prediction = votes.class_sums().argmax(1)
    own, others = noise_of_own(q, num_classes), noise_of_others(q, num_classes)
    bounds = torch.full((len(prediction), num_classes), -torch.inf, dtype=torch.float64, device=prediction.device)
    for winner in sorted(set(prediction.tolist())):
        rows = (prediction == winner).nonzero()[:, 0]
        nothing = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
        for rival in range(num_classes):
            if rival != winner:
                margins = votes.margins(Pair(winner, rival, own, others), rows, nothing, nothing)
                bounds[rows, rival] = TAILS[tail](margins, nothing + 1)
    log_error = bounds.logsumexp(1) + 4 * num_classes * EPS
    return SmoothedPrediction(prediction.cpu(), log_error.clamp(max=0).cpu())


def _blocks(weights: Iterable[Tensor], num_points: int) -> Iterator[Tensor]:
    """Chunks of rows, checked, float64, small enough for a processor's cache."""
    rows = rows_per_chunk(num_points, budget=_BLOCK_BYTES)
    for chunk in weights:
        if chunk.ndim != 2 or chunk.shape[1] != num_points or not chunk.is_floating_point():
            got = f"shape {tuple(chunk.shape)}, dtype {chunk.dtype}"
            raise UserError(f"weights must be a float matrix (points, {num_points} training labels), got {got}")
        yield from (part.double() for part in torch.split(chunk, rows))
