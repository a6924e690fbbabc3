r"""How many of several predictions one adversary can change with one budget of label changes.

Certificates of single points let the adversary spend all r changes on each; here the same r changes count for all.

**Theorem (upper bound).** Let :math:`m_{tj} > 0` be the margin of test point t over rival j and :math:`g_{tij}` the
gain of changing label i (the table of :mod:`lightning_poison.certificates.label_linear`), and
:math:`h_{ti} = \min(1, \max_j g_{tij} / m_{tj})`. For every :math:`u \in [0, 1]^T` at most

.. math:: \sum_t (1 - u_t) + \text{the sum of the r largest } v_i = \sum_t u_t h_{ti}

predictions change under r changed labels.

**Proof.** Let z mark the changed labels. If prediction t changes to j, then :math:`\sum_i g_{tij} z_i \ge m_{tj}`, so
:math:`\sum_i h_{ti} z_i \ge 1`. Hence the number of changed predictions is at most
:math:`\sum_t \min(1, \sum_i h_{ti} z_i) \le \sum_t (1 - u_t) + u_t \sum_i h_{ti} z_i`, and with r ones in z the second
part is at most the sum of the r largest :math:`v_i`. QED.

It is the Lagrangian dual of the linear relaxation (each change hurts every point as it would if it were alone), so its
minimum over u is the relaxation's value; a subgradient method looks for it, and wherever it stops the bound holds.
Points whose own radius is at least r are left out: they never change. Margins are reduced by the rounding bound of
``score_slack``, quotients and sums are rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.certificates.collective_attack import attack_together
from lightning_poison.certificates.label_linear import certify_label_linear, flip_gains, score_slack
from lightning_poison.functional.checks import check_integer
from lightning_poison.functional.ridge import rows_per_chunk

__all__ = ["CollectiveCertificate", "certify_together"]

_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class CollectiveCertificate:
    """How many of ``num_points`` predictions ``budget`` changes of training labels can change.

    Args:
        budget: r.
        num_points: how many predictions were looked at.
        at_least: so many the attack below does change.
        at_most: no attack changes more.
        index: shape (f,), int64, f <= r: the training labels that the attack changes.
        new_label: shape (f,), int64: to what.
    """

    budget: int
    num_points: int
    at_least: int
    at_most: int
    index: Tensor
    new_label: Tensor


def certify_together(
    weights: Tensor | Iterable[Tensor], labels: Tensor, num_classes: int, budget: int, steps: int = 300
) -> CollectiveCertificate:
    """Bound from both sides how many predictions of a label-linear learner one budget of label changes can change.

    Pass the rows of points that are classified correctly alone, and ``num_points - at_most`` of them certainly stay so.

    Args:
        weights: shape (m, n), any float dtype, or chunks of it; all m x n are kept, in float32.
        labels: shape (n,), integers in [0, K).
        num_classes: K.
        budget: r, changed labels in all.
        steps: of the subgradient method; more of them tighten the upper bound.

    Raises:
        UserError: labels out of range, weights of another shape or not finite, or a negative budget.

    Example:
        >>> weights = torch.tensor([[3.0, 2.0, 0.0], [0.0, 2.0, 3.0]])
        >>> certificate = certify_together(weights, torch.tensor([0, 0, 0]), num_classes=2, budget=1)
        >>> certificate.at_least, certificate.at_most
        (1, 1)
    """
    budget = check_integer("budget", budget, minimum=0)
    steps = check_integer("steps", steps, minimum=1)
    shares, exposed, tied, points = [], [], 0, 0
    for chunk in [weights] if isinstance(weights, Tensor) else weights:
        for part in torch.split(chunk, rows_per_chunk(len(labels) * num_classes)):
            certificate = certify_label_linear(part, labels, num_classes)
            points += len(part)
            rows = certificate.radius < budget
            share, level = _shares(part[rows].double(), labels.long(), num_classes)
            tied += int(level.sum())
            shares.append(share[~level])
            exposed.append(part[rows])
    kept = torch.cat([torch.empty(0, len(labels)), *shares])
    at_most = min(tied + _dual_bound(kept, budget, steps), points)
    attack = attack_together(torch.cat([torch.empty(0, len(labels)), *exposed]), labels.long(), num_classes, budget)
    return CollectiveCertificate(budget, points, attack.changed, at_most, attack.index, attack.new_label)


def _shares(weights: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """h_ti in float32, rounded up, shape (m, n); and which points have a tie, shape (m,), bool."""
    scores = weights @ torch.nn.functional.one_hot(labels, num_classes).double()
    prediction = scores.argmax(1)
    margins = scores.gather(1, prediction[:, None]) - scores - score_slack(weights)[:, None]
    margins.scatter_(1, prediction[:, None], torch.inf)
    largest = torch.zeros_like(weights)
    own = labels == prediction[:, None]
    for rival in range(num_classes):
        gains = flip_gains(weights, own, (labels == rival) & (prediction[:, None] != rival))
        torch.maximum(largest, gains / margins[:, rival, None].clamp(min=torch.finfo(torch.float64).tiny), out=largest)
    largest = (largest * (1 + 4 * _EPS)).clamp(max=1)
    rounded = largest.float()
    rounded = torch.where(rounded < largest, rounded.nextafter(rounded.new_tensor(torch.inf)), rounded)
    return rounded, (margins <= 0).any(1)


def _dual_bound(shares: Tensor, budget: int, steps: int) -> int:
    """The least bound found, rounded down to a whole number of predictions."""
    points, n = shares.shape
    if points == 0 or budget == 0:
        return 0
    budget = min(budget, n)
    best, value = torch.ones(points), math.inf
    multipliers = best
    for step in range(steps):
        top = (multipliers @ shares).topk(budget)
        now = float((1 - multipliers).sum() + top.values.sum())
        if now < value:
            best, value = multipliers, now
        slope = shares[:, top.indices].sum(1) - 1
        length = points**0.5 / (slope.norm().clamp(min=1e-9) * (1 + step) ** 0.5)
        multipliers = (multipliers - 0.5 * length * slope).clamp(0, 1)
    # Once more in float64: sums of points + budget terms, none negative, each of at most `points`.
    total = torch.zeros(n, dtype=torch.float64)
    for rows in torch.split(torch.arange(points), rows_per_chunk(n)):
        total += best[rows].double() @ shares[rows].double()
    bound = float((1 - best.double()).sum() + total.topk(budget).values.sum())
    return min(math.floor(bound * (1 + 4 * (points + budget + 4) * _EPS)), points)
