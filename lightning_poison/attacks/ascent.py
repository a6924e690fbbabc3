"""The engine of the gradient attacks: projected steepest ascent with an active set."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_poison.attacks.base import Criterion
from lightning_poison.attacks.model import batch_layout, class_scores
from lightning_poison.functional.checks import check_labels
from lightning_poison.functional.norms import Norm

__all__ = ["is_fooled", "projected_ascent"]


def is_fooled(scores: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Untargeted: whether the prediction is not the label. Targeted: whether it is the target.

    Args:
        scores: shape (N, K).
        labels: shape (N,), int64.
        targets: shape (N,), int64, or None.

    Returns:
        shape (N,), bool.

    Raises:
        UserError: a label or target is not below K.

    Example:
        >>> is_fooled(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0]), None)
        tensor([ True, False])
    """
    check_labels("labels", labels, scores.shape[1])
    predictions = scores.argmax(dim=1)
    if targets is None:
        return predictions != labels
    return predictions == check_labels("targets", targets, scores.shape[1])


def projected_ascent(
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
    start: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    *,
    eps: float,
    steps: int,
    step_size: float,
    norm: Norm,
    loss: Callable[[Tensor, Tensor], Tensor],
    criterion: Criterion = "any iterate",
) -> tuple[Tensor, Tensor]:
    """Ascend the loss in the ball around each input by steepest steps, projecting after each.

    A step runs the network forward and backward once: the forward pass that gives the gradient at an iterate also
    tells whether that iterate fools the network. Samples that it fooled leave the active set, so later steps are
    cheaper. Call it within :func:`frozen_eval`.

    Args:
        model: maps (N, ...) to logits (N, K).
        inputs: shape (N, ...), in [0, 1]: the balls' centres.
        start: shape (N, ...), in the balls and [0, 1].
        labels: shape (N,), int64.
        targets: shape (N,), int64, or None; with targets the loss to the target is descended.
        eps: radius of the ball.
        steps: number of steps.
        step_size: their length in the norm.
        norm: of ball and step.
        loss: (N, K), (N,) to (N,).
        criterion: a sample is fooled by "any iterate", or only by its start or "last iterate".

    Returns:
        examples, shape (N, ...): the iterate that fooled, or the last one; fooled, shape (N,), bool.
    """
    examples = start.clone()
    fooled = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
    active = torch.arange(len(inputs), device=inputs.device)
    points, centres, wanted = start, inputs, labels if targets is None else targets
    sign = 1 if targets is None else -1
    layout = batch_layout(model, inputs)
    for step in range(steps + 1):
        if not len(active):
            break
        last = step == steps
        points = layout(points.detach()).requires_grad_(not last)
        scores = class_scores(model, points)
        hit = is_fooled(scores.detach(), labels[active], None if targets is None else targets[active])
        if not (last or step == 0 or criterion == "any iterate"):
            hit = torch.zeros_like(hit)
        # Where a network has no derivative (a length at 0) a coordinate's gradient may be NaN: it stays put.
        gradients = None if last else torch.autograd.grad(sign * loss(scores, wanted).sum(), points)[0].nan_to_num()
        points = points.detach()
        if last or hit.any():
            gone = hit | last
            examples[active[gone]], fooled[active[gone]] = points[gone], hit[gone]
            active, points, centres, wanted = active[~gone], points[~gone], centres[~gone], wanted[~gone]
            gradients = None if gradients is None else gradients[~gone]
        if gradients is not None:
            points = norm.into_ball_and_box(points + step_size * norm.ascent(gradients), centres, eps)
    return examples, fooled
