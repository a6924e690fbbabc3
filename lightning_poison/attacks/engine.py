"""The engine under every gradient attack: steps of many samples at once, in an active set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.attacks.model import batch_layout, class_scores, input_gradients
from lightning_poison.attacks.samples import Samples
from lightning_poison.functional.norms import Norm

__all__ = ["Look", "Move", "Walk", "ball_move", "network_look", "usual_chunk", "walk"]

Look = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor | None]]
"""``look(points, rows, with_gradient)``: whether each point is at its sample's goal, shape (n,), bool, and the
gradients of what is to be ascended, like the points, or None where they were not asked for."""

Move = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``move(points, gradients, rows)``: where the next step leads."""


@dataclass(frozen=True)
class Walk:
    """Where the samples went.

    Attributes:
        ends: shape (N, ...): the point that reached the goal, or the last one; None where they were not kept.
        steps: shape (N,), int64: how many steps led there.
        reached: shape (N,), bool: whether the goal was reached.
        flat: shape (N,), bool: the first gradient away from the goal was exactly zero in every coordinate, so no
            step could be told from another.
    """

    ends: Tensor | None
    steps: Tensor
    reached: Tensor
    flat: Tensor


def walk(
    starts: Tensor,
    look: Look,
    move: Move,
    *,
    max_steps: int,
    any_iterate: bool = True,
    chunk_size: int | None = None,
    keep_ends: bool = True,
    advance: Callable[[int], object] | None = None,
) -> Walk:
    """Step until the goal or the limit, at most ``chunk_size`` samples at once.

    Who has finished leaves, and who waits takes the place, so every pass through the network is full until nobody
    waits. One look at a point tells both whether it is at the goal and whither the next step goes. Memory is bounded by
    the chunk, however many samples there are. Call it within :func:`frozen_eval`.

    Args:
        starts: shape (N, ...), float.
        look: tells goal and gradient.
        move: takes the step.
        max_steps: number of steps.
        any_iterate: a sample has finished at the first point that is at the goal; otherwise only its start and the
            point after ``max_steps`` steps count.
        chunk_size: samples at once; None: :func:`usual_chunk`.
        keep_ends: whether to keep where each sample went.
        advance: called with the number of samples that have just finished.

    Example:
        >>> def look(points, rows, with_gradient):
        ...     return points[:, 0] >= 1, torch.ones_like(points)
        >>> found = walk(torch.tensor([[0.0], [0.75]]), look, lambda x, g, rows: x + 0.25 * g, max_steps=3)
        >>> found.steps, found.reached
        (tensor([3, 1]), tensor([False,  True]))
    """
    count, device = len(starts), starts.device
    size = usual_chunk(starts) if chunk_size is None else chunk_size
    ends = starts.clone() if keep_ends else None
    steps = torch.zeros(count, dtype=torch.int64, device=device)
    reached, flat = (torch.zeros(count, dtype=torch.bool, device=device) for _ in range(2))
    active = _ActiveSet(starts, size)
    while len(active.rows):
        rows, points = active.rows, active.points
        at_limit = active.taken >= max_steps if active.longest >= max_steps else None
        hit, gradients = look(points, rows, at_limit is None or not bool(at_limit.all()))
        if not any_iterate:
            hit = hit & active.at_start_or(at_limit).to(device)
        if gradients is not None and active.has_fresh:
            flat[rows] |= active.at_start_or(None).to(device) & ~gradients.flatten(1).any(dim=1) & ~hit
        next_points = points if gradients is None else move(points, gradients, rows)
        ended = hit if at_limit is None else hit | at_limit.to(device)
        slots = ended.nonzero().squeeze(1)
        if len(slots):
            gone = rows[slots]
            steps[gone], reached[gone] = active.taken[slots.cpu()].to(device), hit[slots]
            if ends is not None:
                ends[gone] = points[slots].to(ends)
        active.step(next_points, slots)
        if advance is not None and len(slots):
            advance(len(slots))
    return Walk(ends, steps, reached, flat)


class _ActiveSet:
    """The samples that are on their way.

    Attributes:
        rows: shape (n,), int64: which samples they are.
        points: shape (n, ...): where they are.
        taken: shape (n,), int64, on the CPU, which has to know it without waiting for a device: steps taken.
        longest: the most steps that any of them has taken.
        has_fresh: whether any of them has taken none.
    """

    def __init__(self, starts: Tensor, size: int) -> None:
        self._starts, self._waiting = starts, min(size, len(starts))
        self.rows = torch.arange(self._waiting, device=starts.device)
        self.points = starts[: self._waiting].clone()
        self.taken = torch.zeros(self._waiting, dtype=torch.int64)
        self.longest, self.has_fresh = 0, True

    def at_start_or(self, also: Tensor | None) -> Tensor:
        """Which have taken no step, or are among ``also``, shape (n,), bool, on the CPU."""
        fresh = self.taken == 0
        return fresh if also is None else fresh | also

    def step(self, points: Tensor, slots: Tensor) -> None:
        """Move to ``points``; who waits takes the ``slots`` of those that have ended, the rest of them are closed."""
        self.points = points
        self.taken += 1
        self.longest, self.has_fresh = self.longest + 1, False
        if not len(slots):
            return
        joining = min(len(slots), len(self._starts) - self._waiting)
        filled, closed = slots[:joining], slots[joining:]
        if joining:
            self.points[filled] = self._starts[self._waiting : self._waiting + joining]
            self.rows[filled] = torch.arange(self._waiting, self._waiting + joining, device=slots.device)
            self.taken[filled.cpu()] = 0
            self._waiting += joining
            self.has_fresh = True
        if len(closed):
            kept = torch.ones_like(self.rows, dtype=torch.bool)
            kept[closed] = False
            self.points, self.rows, self.taken = self.points[kept], self.rows[kept], self.taken[kept.cpu()]
        self.longest = int(self.taken.max()) if len(self.taken) else 0


def usual_chunk(inputs: Tensor) -> int:
    """How many samples to move at once: few enough for a CPU's cache, enough to keep an accelerator busy.

    Example:
        >>> usual_chunk(torch.rand(1, 1, 28, 28))
        128
    """
    if inputs.device.type == "cpu":
        return 128
    return max(128, min(8192, 2**22 // max(1, inputs[:1].numel())))


def network_look(
    model: Callable[[Tensor], Tensor],
    samples: Samples,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    aims: Tensor | None = None,
) -> Look:
    """Look with one pass forward and one backward; the goal is that the sample is fooled.

    Before a stochastic victim nobody is at the goal: a walk goes on to its end instead of to the first lucky draw.

    Args:
        model: maps (n, ...) to logits (n, K).
        samples: N of them.
        loss: (n, K), (n,) to (n,).
        aims: shape (N,), int64: classes whose loss is descended; None: the targets, and without targets the loss of the
            label is ascended.
    """
    layout = batch_layout(model, samples.inputs)
    labels, targets = samples.labels, samples.targets
    aims = targets if aims is None else aims
    wanted, sign = (labels, 1) if aims is None else (aims, -1)
    checked = False

    def look(points: Tensor, rows: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        nonlocal checked
        points = layout(points.detach()).requires_grad_(with_gradient)
        scores = class_scores(model, points)
        if not checked:  # once, for all samples
            samples.check_classes(scores.shape[1])
            checked = True
        predictions = scores.detach().argmax(dim=1)
        hit = predictions != labels[rows] if targets is None else predictions == targets[rows]
        if samples.stochastic:
            hit = torch.zeros_like(hit)
        if not with_gradient:
            return hit, None
        return hit, input_gradients(sign * loss(scores, wanted[rows]).sum(), points)

    return look


def ball_move(norm: Norm, centres: Tensor, eps: float, step_size: float) -> Move:
    """A steepest step of length ``step_size``, then the nearest point of the ball and of the box [0, 1].

    Args:
        norm: of ball and step.
        centres: shape (N, ...), in [0, 1].
        eps: radius of the balls.
        step_size: in the norm.
    """

    def move(points: Tensor, gradients: Tensor, rows: Tensor) -> Tensor:
        return norm.onto_ball_and_box(norm.step(points, gradients, step_size), centres[rows], eps)

    return move
