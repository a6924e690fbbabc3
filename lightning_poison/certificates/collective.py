r"""How many of several predictions one adversary can change with one budget: a bound, and an attack that tries.

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

from lightning_poison.certificates.label_linear import certify_label_linear, flip_gains, score_slack
from lightning_poison.functional.checks import check_integer
from lightning_poison.functional.ridge import rows_per_chunk

__all__ = ["CollectiveCertificate", "certify_together"]

_ROUNDS = 20
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
    attack = _attack_together(torch.cat([torch.empty(0, len(labels)), *exposed]), labels.long(), num_classes, budget)
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


# --- a greedy attack, the bound from below ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _JointAttack:
    """Label changes and what they do.

    Args:
        index: shape (f,), int64, ascending: the training labels that change.
        new_label: shape (f,), int64.
        changed: how many predictions they change, counted after recomputing all scores from the changed labels.
    """

    index: Tensor
    new_label: Tensor
    changed: int


def _attack_together(weights: Tensor, labels: Tensor, num_classes: int, budget: int) -> _JointAttack:
    r"""Look for ``budget`` label changes that change as many predictions of a label-linear learner as possible.

    Each point t has a priority p_t, large where its margin is small, and a rival j_t. Changing label i from a to b
    takes :math:`w_{ti}` times a sign off the margins, so it gains :math:`V_{ai} - V_{bi}` in all with
    :math:`V = \sum_t p_t (e_{c_t} - e_{j_t}) w_t^T`. In rounds the best changes are made, and priorities and rivals
    follow the new margins. This is tried on the easiest 1, 2, 4, ... points and on all; the best attempt counts.

    Args:
        weights: shape (m, n), any float dtype.
        labels: shape (n,), int64.
        num_classes: K.
        budget: r.
    """
    none = torch.empty(0, dtype=torch.int64)
    best = _JointAttack(none, none, 0)
    if len(weights) == 0 or budget == 0 or num_classes == 1:
        return best
    scores = _scores(weights, labels, num_classes)
    prediction = scores.argmax(1)
    margin, _ = _margins(scores, prediction)
    order = (margin / weights.abs().amax(1).double().clamp(min=1e-300)).argsort()
    sizes = [2**power for power in range(len(weights).bit_length()) if 2**power < len(weights)] + [len(weights)]
    for size in sizes:
        rows = order[:size]
        changed = _greedy(weights[rows], labels, num_classes, budget, prediction[rows])
        count = int((_scores(weights, changed, num_classes).argmax(1) != prediction).sum())
        if count > best.changed:
            index = (changed != labels).nonzero()[:, 0]
            best = _JointAttack(index, changed[index], count)
    return best


def _greedy(weights: Tensor, labels: Tensor, num_classes: int, budget: int, prediction: Tensor) -> Tensor:
    """The labels after the attack on these points."""
    changed, left, share = labels.clone(), budget, max(-(-budget // _ROUNDS), 1)
    while left > 0:
        margin, rival = _margins(_scores(weights, changed, num_classes), prediction)
        open_ = margin > 0
        if not open_.any():
            break
        # Points that are done keep a little priority, or later changes would bring them back.
        typical = margin[open_].median().clamp(min=1e-300)
        priority = torch.where(open_, 1 / (margin + 0.1 * typical), 0.1 / typical)
        towards = torch.nn.functional.one_hot(prediction, num_classes) - torch.nn.functional.one_hot(rival, num_classes)
        values = (towards.double() * priority[:, None]).T.to(weights.dtype) @ weights
        worst, to = values.min(0)
        gains = values.gather(0, labels[None])[0] - worst
        gains[changed != labels] = -torch.inf
        top = gains.topk(min(share, left, len(labels)))
        index = top.indices[top.values > 0]
        if len(index) == 0:
            break
        changed[index] = to[index]
        left -= len(index)
    return changed


def _scores(weights: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    one_hot = torch.nn.functional.one_hot(labels, num_classes).double()
    return torch.cat([part.double() @ one_hot for part in torch.split(weights, 256)])


def _margins(scores: Tensor, prediction: Tensor) -> tuple[Tensor, Tensor]:
    """The least margin of the given predictions, and the rival that it is over."""
    others = scores.scatter(1, prediction[:, None], -torch.inf)
    best, rival = others.max(1)
    return scores.gather(1, prediction[:, None])[:, 0] - best, rival
