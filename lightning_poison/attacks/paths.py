"""Adversarial paths: how many sign-gradient steps away the decision boundary is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.attacks.ascent import is_fooled
from lightning_poison.attacks.model import batch_layout, check_samples, class_scores, frozen_eval
from lightning_poison.functional.checks import check_integer, check_number
from lightning_poison.functional.losses import cross_entropy

__all__ = ["PathLengths", "adversarial_paths"]


@dataclass(frozen=True)
class PathLengths:
    """How long each sample's path was.

    Attributes:
        length: shape (N,), int64, on the CPU: steps until the prediction flipped, the limit where it never did.
        reached: shape (N,), bool, on the CPU: whether it flipped within the limit.
        target: shape (N,), int64, on the CPU: the class to reach; -1: any other than the label.
    """

    length: Tensor
    reached: Tensor
    target: Tensor


def adversarial_paths(
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
    targets: Tensor | None = None,
    *,
    step: float = 0.01,
    max_steps: int = 200,
    clip: bool = False,
    chunk_size: int = 256,
    advance: Callable[[int], object] | None = None,
) -> PathLengths:
    """Steps of unbounded sign-gradient ascent until the prediction flips.

    Untargeted, a step is ``x + step * sign(grad CE(x, label))`` and the path ends when the prediction is not the
    label; targeted, it is ``x - step * sign(grad CE(x, target))`` and ends at the target (Algorithm 2, "targeted
    unbounded gradient ascent", of the thesis this package grew from). A path that starts at its end has length 0.

    All samples share one active set of at most ``chunk_size`` points: who has finished leaves, who waits joins. The
    forward pass of a step also tells whether the step before flipped the prediction. A pixel whose gradient is NaN, as
    the network has no derivative there, stays put.

    Args:
        model: maps (N, ...) to logits (N, K); put in eval mode and left as found.
        inputs: shape (N, ...), float, in [0, 1].
        labels: shape (N,), integer.
        targets: shape (N,), integer; None: untargeted.
        step: length of a step in l_inf pixel units.
        max_steps: the longest path that is followed.
        clip: keep the path within [0, 1]; paths get longer.
        chunk_size: how many points are moved at once.
        advance: called with the number of paths that have just ended.

    Raises:
        UserError: the inputs, the labels or the model's output are unusable.

    Example:
        >>> scores = lambda x: torch.cat([x, 1 - x], dim=1)
        >>> adversarial_paths(scores, torch.tensor([[0.62], [0.4]]), torch.tensor([0, 0]), step=0.05).length
        tensor([3, 0])
    """
    check_number("step", step, minimum=0, maximum=1, remedy="steps of 0.01 are usual")
    check_integer("max_steps", max_steps, minimum=0)
    check_integer("chunk_size", chunk_size, minimum=1)
    with frozen_eval(model):
        inputs, labels = inputs.detach().clone(), labels.detach().clone()
        targets = None if targets is None else targets.detach().clone()
        check_samples(inputs, labels, targets)
        paths = _Paths(model, inputs, labels.long(), None if targets is None else targets.long(), step, clip)
        length, reached = paths.follow(max_steps, chunk_size, advance or (lambda _: None))
    ends = torch.full_like(length, -1) if targets is None else targets.long().cpu()
    return PathLengths(length, reached, ends)


class _Paths:
    """The paths' active set."""

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        inputs: Tensor,
        labels: Tensor,
        targets: Tensor | None,
        step: float,
        clip: bool,
    ) -> None:
        self.model, self.inputs, self.labels, self.targets, self.clip = model, inputs, labels, targets, clip
        self.signed_step = step if targets is None else -step
        self.towards = labels if targets is None else targets
        self.device = inputs.device
        self.layout = batch_layout(model, inputs)

    def follow(self, max_steps: int, chunk_size: int, advance: Callable[[int], object]) -> tuple[Tensor, Tensor]:
        count = len(self.inputs)
        length = torch.zeros(count, dtype=torch.int64, device=self.device)
        reached = torch.zeros(count, dtype=torch.bool, device=self.device)
        rows, points, waiting = torch.arange(0, device=self.device), self.inputs[:0], 0
        while waiting < count or len(rows):
            joining = torch.arange(waiting, min(count, waiting + chunk_size - len(rows)), device=self.device)
            if len(joining):
                rows, points = torch.cat([rows, joining]), torch.cat([points, self.inputs[joining]])
                waiting += len(joining)
            hit, points_next = self._step(rows, points)
            reached[rows] = hit
            ended = hit | (length[rows] >= max_steps)
            going = ~ended
            rows, left = rows[going], len(rows)
            length[rows] += 1
            points = points_next[going]
            if left > len(rows):
                advance(left - len(rows))
        return length.cpu(), reached.cpu()

    def _step(self, rows: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Whether each point is at its end, and where its next step leads."""
        points = self.layout(points.detach()).requires_grad_()
        scores = class_scores(self.model, points)
        hit = is_fooled(scores.detach(), self.labels[rows], None if self.targets is None else self.targets[rows])
        (gradients,) = torch.autograd.grad(cross_entropy(scores, self.towards[rows]).sum(), points)
        moved = points.detach() + self.signed_step * gradients.nan_to_num().sign()
        return hit, moved.clamp(0, 1) if self.clip else moved
