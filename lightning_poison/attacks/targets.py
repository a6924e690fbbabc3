"""Which class a targeted attack steers each sample to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lightning_poison.attacks.engine import usual_chunk
from lightning_poison.attacks.model import check_floats, class_scores, frozen_eval
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer, check_labels

__all__ = ["TargetRule", "choose_targets", "least_likely"]

TargetRule = Literal["next", "least_likely"]


def choose_targets(rule: int | TargetRule, model: Callable[[Tensor], Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
    """The target of each sample.

    Args:
        rule: a class: that one for every sample, also for those that have it as label; "next": the class after the
            label, and the first one after the last; "least_likely": see :func:`least_likely`.
        model: maps (n, ...) to logits (n, K); left as found.
        inputs: shape (N, ...), in [0, 1].
        labels: shape (N,), integer.

    Returns:
        shape (N,), int64.

    Raises:
        UserError: there is no such rule or class, or the model's output is unusable.

    Example:
        >>> scores = lambda x: torch.cat([x, 1 - x, 0.5 * x], dim=1)
        >>> inputs, labels = torch.tensor([[0.9], [0.1]]), torch.tensor([0, 2])
        >>> choose_targets("next", scores, inputs, labels), choose_targets("least_likely", scores, inputs, labels)
        (tensor([1, 0]), tensor([1, 0]))
    """
    with frozen_eval(model), torch.no_grad():
        inputs, labels = inputs.detach().clone(), labels.detach().clone().long()
        if not len(inputs):
            return labels
        check_floats(inputs)
        size = usual_chunk(inputs)
        pieces = zip(torch.split(inputs, size), torch.split(labels, size), strict=True)
        if rule == "least_likely":
            return torch.cat([least_likely(class_scores(model, piece), own) for piece, own in pieces])
        num_classes = class_scores(model, inputs[:1]).shape[1]
    check_labels("labels", labels, num_classes)
    if rule == "next":
        return (labels + 1) % num_classes
    if isinstance(rule, str):
        raise UserError(f"target must be a class number, next or least_likely, got {rule}")
    rule = check_integer("target", rule, minimum=0, remedy="write a class number, next or least_likely")
    if rule >= num_classes:
        raise UserError(f"target must be one of the victim's classes 0 to {num_classes - 1}, got {rule}")
    return torch.full_like(labels, rule)


def least_likely(scores: Tensor, labels: Tensor) -> Tensor:
    """The class other than the label with the lowest score, the first of equal ones.

    As in the iterative least-likely class method (Kurakin et al., "Adversarial examples in the physical world", 2017,
    sect. 2.3), but for samples whose label is itself the least likely: to steer there would be no attack.

    Args:
        scores: shape (N, K), of the clean inputs.
        labels: shape (N,), int64.

    Returns:
        shape (N,), int64.

    Example:
        >>> least_likely(torch.tensor([[0.5, 0.1, 0.2], [0.5, 0.1, 0.2]]), torch.tensor([0, 1]))
        tensor([1, 2])
    """
    check_labels("labels", labels, scores.shape[1])
    return scores.scatter(1, labels[:, None], torch.inf).argmin(dim=1)
