"""Victims whose scores differ from pass to pass: how they are found out, and who is fooled then."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_poison.attacks.engine import Look, usual_chunk
from lightning_poison.attacks.model import class_scores
from lightning_poison.attacks.samples import Samples

__all__ = ["DRAWS", "StochasticVictimWarning", "confirmed", "fooling_draws", "fresh_verdicts", "is_stochastic"]

DRAWS = 9
"""Passes of which most have to agree where one is not to decide."""

_MANY, _MORE_PASSES = 32, 16  # for a victim that draws random numbers to no visible end
_CAUSES = "noise, dropout or augmentation that stay on in eval mode, or statistics of the batch"


class StochasticVictimWarning(UserWarning):
    """The victim's scores of the same inputs differ from pass to pass.

    The first lucky draw of forty would count as success of an attack, even of one that may change nothing.
    """

    def __init__(self, consequence: str) -> None:
        super().__init__(f"the victim's scores of the same inputs differ from pass to pass ({_CAUSES}); {consequence}")


@torch.no_grad()
def is_stochastic(model: Callable[[Tensor], Tensor], inputs: Tensor) -> bool:
    """Whether the model's scores of the same inputs differ from pass to pass; call it within ``frozen_eval(model)``.

    What it says of an input beside one other is compared with what it says of it beside a third. Where it takes from
    the global random streams, up to seventeen passes of more inputs are compared, as a rare draw may show only then.
    Differences within rounding don't count.

    Args:
        model: maps (n, ...) to scores (n, K).
        inputs: shape (N, ...); the first three are looked at, or the first 32.

    Raises:
        UserError: the model's output is unusable.

    Example:
        >>> inputs = torch.rand(4, 3)
        >>> is_stochastic(lambda x: x, inputs), is_stochastic(lambda x: x + torch.rand_like(x), inputs)
        (False, True)
        >>> is_stochastic(lambda x: x - x.mean(dim=0), inputs)
        True
    """
    many = inputs[:_MANY].clone()  # a model that overwrites its inputs is refused, but has then done it
    if not len(many):
        return False
    before = _random_states(inputs.device)
    last = class_scores(model, many[:2])[-1:]  # of the second input, or of the only one
    draws = _random_states(inputs.device) != before
    again = class_scores(model, many[1:3])[:1] if len(many) > 2 else class_scores(model, many[:2])[-1:]
    if _differ(again, last):
        return True
    if not draws:
        return False
    first = class_scores(model, many)
    return any(_differ(class_scores(model, many), first) for _ in range(_MORE_PASSES))


def _random_states(device: torch.device) -> tuple[object, ...]:
    """Where the global streams stand, comparable."""
    cuda = torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""
    numpy_state: Any = np.random.get_state()  # noqa: NPY002  # models draw from it
    return torch.get_rng_state().numpy().tobytes(), cuda, numpy_state[1].tobytes(), numpy_state[2:], random.getstate()


def _differ(scores: Tensor, others: Tensor) -> bool:
    """Whether scores differ by more than a thousandth of the range of a sample's scores, and by more than rounding."""
    dtype, device = scores.dtype, scores.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    scores, others = scores.cpu().double(), others.cpu().double()
    spread = (scores.amax(dim=1) - scores.amin(dim=1)).amax()
    slack = 0.001 * spread + 4 * torch.finfo(dtype).eps * scores.abs().amax()
    return bool((scores - others).abs().amax() > slack)


@torch.no_grad()
def fooling_draws(model: Callable[[Tensor], Tensor], points: Tensor, samples: Samples, draws: int = DRAWS) -> Tensor:
    """In how many of ``draws`` passes of its own each point is at its sample's goal.

    Args:
        model: maps (n, ...) to scores (n, K); call it within ``frozen_eval(model)``.
        points: shape (N, ...).
        samples: N of them, whose labels and targets say what the goal is.
        draws: number of passes.

    Returns:
        shape (N,), int64.
    """
    counts = torch.zeros_like(samples.labels)
    for rows in torch.split(torch.arange(len(points), device=points.device), usual_chunk(points)):
        part = samples[rows]
        for _ in range(draws):
            counts[rows] += part.fooled(class_scores(model, points[rows]))
    return counts


def fresh_verdicts(model: Callable[[Tensor], Tensor], points: Tensor, samples: Samples) -> Tensor:
    """Whether each point is at its sample's goal in a pass of its own, shape (N,), bool.

    Call it within ``frozen_eval(model)``.
    """
    return fooling_draws(model, points, samples, draws=1) > 0


def confirmed(look: Look, model: Callable[[Tensor], Tensor], samples: Samples) -> Look:
    """``look``, for which a point is at its goal only if it is so in most of :data:`DRAWS` further passes."""

    def sure(points: Tensor, rows: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        hit, gradients = look(points, rows, with_gradient)
        seen = hit.nonzero().squeeze(1)
        if len(seen):
            hit = hit.clone()
            hit[seen] = fooling_draws(model, points[seen].detach(), samples[rows[seen]]) > DRAWS // 2
        return hit, gradients

    return sure
