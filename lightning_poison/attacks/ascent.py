"""One run of projected steepest ascent: what FGSM, BIM and PGD repeat and combine."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lightning_poison.attacks.base import AttackResult, Criterion
from lightning_poison.attacks.engine import ball_move, network_look, walk
from lightning_poison.attacks.samples import Samples
from lightning_poison.functional.norms import Norm

__all__ = ["projected_ascent"]


def projected_ascent(
    model: Callable[[Tensor], Tensor],
    samples: Samples,
    start: Tensor,
    *,
    eps: float,
    steps: int,
    step_size: float,
    norm: Norm,
    loss: Callable[[Tensor, Tensor], Tensor],
    criterion: Criterion = "any iterate",
    aims: Tensor | None = None,
) -> AttackResult:
    """Ascend the loss in the ball around each input by steepest steps, projecting after each.

    Call it within :func:`frozen_eval`.

    Args:
        model: maps (N, ...) to logits (N, K).
        samples: N of them, whose inputs are the balls' centres; with targets the loss to the target is descended.
        start: shape (N, ...), in the balls and [0, 1].
        eps: radius of the ball.
        steps: number of steps.
        step_size: their length in the norm.
        norm: of ball and step.
        loss: (N, K), (N,) to (N,).
        criterion: a sample is fooled by "any iterate", or only by its start or "last iterate"; before a stochastic
            victim all steps are taken, and nobody counts as fooled yet.
        aims: shape (N,), int64: classes whose loss is descended; None: the targets.
    """
    look = network_look(model, samples, loss, aims=aims)
    move = ball_move(norm, samples.inputs, eps, step_size)
    found = walk(start, look, move, max_steps=steps, any_iterate=criterion == "any iterate")
    ends = start if found.ends is None else found.ends
    return AttackResult(ends, found.reached, criterion, {"zero_gradient": found.flat.double()})
