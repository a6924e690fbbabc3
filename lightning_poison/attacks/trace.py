"""Adversarial paths point by point: where each step led, and what the network made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.attacks.engine import walk
from lightning_poison.attacks.model import class_scores, frozen_eval
from lightning_poison.attacks.paths import path_look, sign_move
from lightning_poison.attacks.samples import Samples
from lightning_poison.functional.checks import check_integer, check_number

__all__ = ["Trace", "path_trace"]


@dataclass(frozen=True)
class Trace:
    """One adversarial path of L steps.

    Attributes:
        points: shape (L + 1, ...), on the CPU: the start, and where each step led.
        probabilities: shape (L + 1, K), on the CPU: softmax of the class scores at each point.
        label: the class that the path leaves.
        target: the class that it is to reach; -1: any other.
        reached: whether it ended there within the limit.
    """

    points: Tensor
    probabilities: Tensor
    label: int
    target: int
    reached: bool

    @property
    def length(self) -> int:
        """Number of steps."""
        return len(self.points) - 1

    @property
    def predictions(self) -> Tensor:
        """The most probable class at each point, shape (L + 1,), int64."""
        return self.probabilities.argmax(dim=1)

    @property
    def goal(self) -> int:
        """The target; untargeted, the most probable class but the label at the path's end."""
        if self.target >= 0:
            return self.target
        others = self.probabilities[-1].clone()
        others[self.label] = -1.0
        return int(others.argmax())

    @property
    def label_probability(self) -> Tensor:
        """Of the label at each point, shape (L + 1,)."""
        return self.probabilities[:, self.label]

    @property
    def goal_probability(self) -> Tensor:
        """Of the goal at each point, shape (L + 1,)."""
        return self.probabilities[:, self.goal]


def path_trace(
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
    targets: Tensor | None = None,
    *,
    step: float = 0.01,
    max_steps: int = 200,
    clip: bool = False,
) -> list[Trace]:
    """Every point of the adversarial paths of a few samples, as :func:`adversarial_paths` follows them.

    All points of all paths are kept, so it is meant for a handful of samples.

    Args:
        model: maps (N, ...) to logits (N, K); put in eval mode and left as found.
        inputs: shape (N, ...), float, in [0, 1].
        labels: shape (N,), integer.
        targets: shape (N,), integer; None: untargeted.
        step: length of a step in l_inf pixel units.
        max_steps: the longest path that is followed.
        clip: keep the path within [0, 1].

    Returns:
        one trace a sample.

    Raises:
        UserError: the inputs, the labels or the model's output are unusable.

    Example:
        >>> scores = lambda x: torch.cat([x, 1 - x], dim=1)
        >>> (trace,) = path_trace(scores, torch.tensor([[0.625]]), torch.tensor([0]), step=0.0625)
        >>> trace.points.squeeze(1).tolist(), trace.predictions.tolist()
        ([0.625, 0.5625, 0.5, 0.4375], [0, 0, 0, 1])
    """
    step = check_number("step", step, minimum=0, maximum=1, remedy="steps of 0.01 are usual")
    max_steps = check_integer("max_steps", max_steps, minimum=0)
    with frozen_eval(model):
        samples = Samples.checked(inputs, labels, targets)
        recorder = _Recorder(model, len(samples))
        inner, _ = path_look(model, samples, recorder.scores)

        def look(points: Tensor, rows: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
            seen = inner(points, rows, with_gradient)
            recorder.note(points, rows)
            return seen

        found = walk(samples.inputs, look, sign_move(step, clip=clip), max_steps=max_steps, keep_ends=False)
    aims = torch.full_like(samples.labels, -1) if samples.targets is None else samples.targets
    return [
        Trace(torch.stack(points), torch.stack(probabilities), label, target, reached)
        for (points, probabilities), label, target, reached in zip(
            recorder.trails, samples.labels.tolist(), aims.tolist(), found.reached.tolist(), strict=True
        )
    ]


class _Recorder:
    """The network, and what every sample's path has seen of it."""

    def __init__(self, model: Callable[[Tensor], Tensor], count: int) -> None:
        self.model = model
        self.trails: list[tuple[list[Tensor], list[Tensor]]] = [([], []) for _ in range(count)]
        self._latest = torch.empty(0)

    def scores(self, points: Tensor) -> Tensor:
        """The model's class scores, remembered."""
        scores = class_scores(self.model, points)
        self._latest = scores.detach()
        return scores

    def note(self, points: Tensor, rows: Tensor) -> None:
        """Add the points that have just been looked at to the paths of their samples."""
        seen = points.detach().cpu().clone(), self._latest.softmax(dim=1).cpu()
        for row, point, probabilities in zip(rows.tolist(), *seen, strict=True):
            path, beliefs = self.trails[row]
            path.append(point)
            beliefs.append(probabilities)
