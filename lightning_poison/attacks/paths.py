"""Adversarial paths: how many sign-gradient steps away the decision boundary is, and where each step leads."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.attacks.engine import Look, Move, network_look, walk
from lightning_poison.attacks.model import class_scores, frozen_eval
from lightning_poison.attacks.samples import Samples
from lightning_poison.attacks.stochastic import StochasticVictimWarning, confirmed, is_stochastic
from lightning_poison.functional.checks import check_integer, check_number
from lightning_poison.functional.losses import cross_entropy

__all__ = ["Trace", "adversarial_paths", "path_trace"]

_CONFIRMED = "a path ends where most of nine further passes find the prediction flipped"


# --- lengths ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PathLengths:
    """How long each sample's path was.

    Attributes:
        length: shape (N,), int64, on the CPU: steps until the prediction flipped, the limit where it never did.
        reached: shape (N,), bool, on the CPU: whether it flipped within the limit.
        target: shape (N,), int64, on the CPU: the class to reach; -1: any other than the label.
        ends: shape (N, ...), on the CPU: where each path ended; None where they were not kept.
        stochastic: whether the victim's scores differ from pass to pass.
    """

    length: Tensor
    reached: Tensor
    target: Tensor
    ends: Tensor | None = None
    stochastic: bool = False


def adversarial_paths(
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
    targets: Tensor | None = None,
    *,
    step: float = 0.01,
    max_steps: int = 200,
    clip: bool = False,
    chunk_size: int | None = None,
    keep_ends: bool = False,
    advance: Callable[[int], object] | None = None,
) -> PathLengths:
    """Steps of unbounded sign-gradient ascent until the prediction flips.

    Untargeted, a step is ``x + step * sign(grad CE(x, label))`` and the path ends when the prediction is not the
    label; targeted, it is ``x - step * sign(grad CE(x, target))`` and ends at the target (Algorithm 2, "targeted
    unbounded gradient ascent", of the thesis this package grew from). A path that starts at its end has length 0.

    All samples share one active set of at most ``chunk_size`` points: who has finished leaves, who waits joins. The
    forward pass of a step also tells whether the step before flipped the prediction. A pixel whose gradient is NaN, as
    the network has no derivative there, stays put.

    Where the network's scores of the same inputs differ from pass to pass, a path would end by a lucky draw. It is
    found out, and said (:class:`~lightning_poison.attacks.stochastic.StochasticVictimWarning`), and the path ends where
    most of nine further passes find the prediction flipped.

    Args:
        model: maps (N, ...) to logits (N, K); put in eval mode and left as found.
        inputs: shape (N, ...), float, in [0, 1].
        labels: shape (N,), integer.
        targets: shape (N,), integer; None: untargeted.
        step: length of a step in l_inf pixel units.
        max_steps: the longest path that is followed.
        clip: keep the path within [0, 1]; paths get longer.
        chunk_size: how many points are moved at once; None: as many as suit the device.
        keep_ends: whether to return where the paths ended, which takes the memory of the inputs once more.
        advance: called with the number of paths that have just ended.

    Raises:
        UserError: the inputs, the labels or the model's output are unusable.

    Example:
        >>> scores = lambda x: torch.cat([x, 1 - x], dim=1)
        >>> adversarial_paths(scores, torch.tensor([[0.62], [0.4]]), torch.tensor([0, 0]), step=0.05).length
        tensor([3, 0])
    """
    step, max_steps = _checked(step, max_steps)
    if chunk_size is not None:
        chunk_size = check_integer("chunk_size", chunk_size, minimum=1)
    with frozen_eval(model):
        samples = Samples.checked(inputs, labels, targets)
        look, stochastic = _path_look(model, samples)
        found = walk(
            samples.inputs,
            look,
            _sign_move(step, clip=clip),
            max_steps=max_steps,
            chunk_size=chunk_size,
            keep_ends=keep_ends,
            advance=advance,
        )
    ends = None if found.ends is None else found.ends.cpu()
    return PathLengths(found.steps.cpu(), found.reached.cpu(), _aims(samples).cpu(), ends, stochastic)


def _path_look(
    model: Callable[[Tensor], Tensor], samples: Samples, recorded: Callable[[Tensor], Tensor] | None = None
) -> tuple[Look, bool]:
    """The look of paths out of the label or to the target; whether the model is stochastic, which is said.

    Args:
        model: maps (n, ...) to logits (n, K); call it within ``frozen_eval(model)``.
        samples: N of them.
        recorded: the same model, asked for the points of the paths alone.
    """
    look = network_look(model if recorded is None else recorded, samples, cross_entropy)
    stochastic = is_stochastic(model, samples.inputs)
    if stochastic:
        warnings.warn(StochasticVictimWarning(_CONFIRMED), stacklevel=3)
        look = confirmed(look, model, samples)
    return look, stochastic


def _sign_move(step: float, *, clip: bool) -> Move:
    """A step along the sign of the gradient, within no ball.

    Args:
        step: its length in l_inf pixel units.
        clip: stay within [0, 1].

    Example:
        >>> _sign_move(0.1, clip=True)(torch.tensor([[0.95, 0.5]]), torch.tensor([[2.0, -3.0]]), torch.tensor([0]))
        tensor([[1.0000, 0.4000]])
    """

    def move(points: Tensor, gradients: Tensor, rows: Tensor) -> Tensor:  # noqa: ARG001  # a move's signature
        moved = points + step * gradients.sign()
        return moved.clamp_(0, 1) if clip else moved

    return move


def _checked(step: float, max_steps: int) -> tuple[float, int]:
    step = check_number("step", step, minimum=0, maximum=1, remedy="steps of 0.01 are usual")
    return step, check_integer("max_steps", max_steps, minimum=0)


def _aims(samples: Samples) -> Tensor:
    """The class that each path is to reach; -1: any other than the label."""
    return torch.full_like(samples.labels, -1) if samples.targets is None else samples.targets


# --- point by point ---------------------------------------------------------------------------------------------------


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
    step, max_steps = _checked(step, max_steps)
    with frozen_eval(model):
        samples = Samples.checked(inputs, labels, targets)
        recorder = _Recorder(model, len(samples))
        inner, _ = _path_look(model, samples, recorder.scores)

        def look(points: Tensor, rows: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
            seen = inner(points, rows, with_gradient)
            recorder.note(points, rows)
            return seen

        found = walk(samples.inputs, look, _sign_move(step, clip=clip), max_steps=max_steps, keep_ends=False)
    return [
        Trace(torch.stack(points), torch.stack(probabilities), label, target, reached)
        for (points, probabilities), label, target, reached in zip(
            recorder.trails, samples.labels.tolist(), _aims(samples).tolist(), found.reached.tolist(), strict=True
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
