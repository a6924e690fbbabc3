"""One set of label changes against many predictions: a greedy attack, which bounds every certificate from above."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["JointAttack", "attack_together"]

_ROUNDS = 20


@dataclass(frozen=True)
class JointAttack:
    """Label changes and what they do.

    Args:
        index: shape (f,), int64, ascending: the training labels that change.
        new_label: shape (f,), int64.
        changed: how many predictions they change, counted after recomputing all scores from the changed labels.
    """

    index: Tensor
    new_label: Tensor
    changed: int


def attack_together(weights: Tensor, labels: Tensor, num_classes: int, budget: int) -> JointAttack:
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
    best = JointAttack(none, none, 0)
    if len(weights) == 0 or budget == 0 or num_classes == 1:
        return best
    scores = _scores(weights, labels, num_classes)
    margin, prediction, _ = _margins(scores, scores.argmax(1))
    order = (margin / weights.abs().amax(1).double().clamp(min=1e-300)).argsort()
    sizes = [2**power for power in range(len(weights).bit_length()) if 2**power < len(weights)] + [len(weights)]
    for size in sizes:
        rows = order[:size]
        changed = _greedy(weights[rows], labels, num_classes, budget, prediction[rows])
        count = int((_scores(weights, changed, num_classes).argmax(1) != prediction).sum())
        if count > best.changed:
            index = (changed != labels).nonzero()[:, 0]
            best = JointAttack(index, changed[index], count)
    return best


def _greedy(weights: Tensor, labels: Tensor, num_classes: int, budget: int, prediction: Tensor) -> Tensor:
    """The labels after the attack on these points."""
    changed, left, share = labels.clone(), budget, max(-(-budget // _ROUNDS), 1)
    while left > 0:
        margin, _, rival = _margins(_scores(weights, changed, num_classes), prediction)
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


def _margins(scores: Tensor, prediction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The least margin of the given predictions, the predictions, and the rival that it is over."""
    others = scores.scatter(1, prediction[:, None], -torch.inf)
    best, rival = others.max(1)
    return scores.gather(1, prediction[:, None])[:, 0] - best, prediction, rival
