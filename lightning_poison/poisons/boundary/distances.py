"""How far training points are from a network's decision boundary, followed once for all who ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_poison.attacks import adversarial_paths
from lightning_poison.errors import UserError
from lightning_poison.functional.losses import margin
from lightning_poison.nets.running import device_of
from lightning_poison.poisons.surrogates import surrogate_scores
from lightning_poison.poisons.training_set import TrainingSet
from lightning_poison.poisons.unit_box import UnitBox, input_range

__all__ = ["BoundaryDistances", "PathRule", "boundary_distances"]

_UNKNOWN = -2
_PART_BYTES = 2**28


@dataclass(frozen=True)
class PathRule:
    """How paths are followed.

    Args:
        step: length of a step in the units of the inputs.
        max_steps: the longest path that is followed.
        clip: whether paths stay within [0, 1].
    """

    step: float
    max_steps: int
    clip: bool


@dataclass(frozen=True, eq=False)
class BoundaryDistances:
    """How far some points are from the boundary.

    Args:
        length: shape (m,), int64: steps of the adversarial path; ``max_steps`` where it did not end.
        reached: shape (m,), bool: whether it ended.
        margin: shape (m,), float32: how much higher the network scores the label than the class to reach.
    """

    length: Tensor
    reached: Tensor
    margin: Tensor

    def __getitem__(self, rows: Tensor) -> BoundaryDistances:
        """Those of some of the points."""
        return BoundaryDistances(self.length[rows], self.reached[rows], self.margin[rows])


class _Known:
    """What has been followed on one network so far."""

    def __init__(self, network: nn.Module, points: int) -> None:
        self.network = network  # kept, so that its id stays its own
        self.aims = torch.full((points,), _UNKNOWN, dtype=torch.int64)
        self.length = torch.zeros(points, dtype=torch.int64)
        self.reached = torch.zeros(points, dtype=torch.bool)
        self.margin = torch.zeros(points)


def boundary_distances(
    network: nn.Module, training_set: TrainingSet, index: Tensor, aims: Tensor, rule: PathRule
) -> BoundaryDistances:
    """Follow the adversarial paths of some training points; those that were followed before are looked up.

    Args:
        network: maps (N, ...) to logits (N, K).
        training_set: the clean data.
        index: shape (m,), int64: the points.
        aims: shape (m,), int64: the class each path leads to; -1: out of the point's own class.
        rule: how to follow them.

    Raises:
        UserError: ``clip`` is asked for inputs outside of [0, 1].
    """
    key = ("boundary distances", id(network), rule)
    known = training_set.remembered(key, lambda: _Known(network, training_set.num_points))
    missing = known.aims[index] != aims
    with training_set.progress("adversarial paths", int(missing.sum())) as advance:
        for targeted in (False, True):
            kind = missing & ((aims >= 0) == targeted)
            for rows in _parts(kind.nonzero()[:, 0], training_set.inputs):
                _follow(known, training_set, index[rows], aims[rows], rule, advance)
    return BoundaryDistances(known.length[index], known.reached[index], known.margin[index])


def _parts(rows: Tensor, inputs: Tensor) -> tuple[Tensor, ...]:
    size = max(1024, _PART_BYTES // max(1, 4 * inputs[:1].numel()))
    return torch.split(rows, size) if len(rows) else ()


def _follow(
    known: _Known,
    training_set: TrainingSet,
    index: Tensor,
    aims: Tensor,
    rule: PathRule,
    advance: Callable[[int], object],
) -> None:
    inputs, labels = training_set.inputs[index], training_set.labels[index]
    targets = aims if bool((aims >= 0).all()) else None
    device = device_of(known.network)
    box = _box(training_set, rule)
    model = known.network if box is None else box.around_network(known.network)
    starts = inputs if box is None else box.inwards(inputs)
    found = adversarial_paths(
        model,
        starts.to(device),
        labels.to(device),
        None if targets is None else targets.to(device),
        step=rule.step if box is None else rule.step / box.width,
        max_steps=rule.max_steps,
        clip=rule.clip,
        advance=advance,
    )
    known.length[index], known.reached[index] = found.length, found.reached
    known.margin[index] = _margins(surrogate_scores(known.network, inputs), labels, targets)
    known.aims[index] = aims


def _margins(scores: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    if targets is None:
        return -margin(scores, labels)
    return (scores.gather(1, labels[:, None]) - scores.gather(1, targets[:, None])).squeeze(1)


def _box(training_set: TrainingSet, rule: PathRule) -> UnitBox | None:
    """The range of inputs that are no pixels, which paths measure in its own units; None: they are pixels."""
    box = input_range(training_set)
    if box is None:
        return None
    if rule.clip:
        high = box.low + box.width
        raise UserError(f"clip keeps paths within [0, 1], but the inputs lie in [{box.low:.4g}, {high:.4g}]; leave it")
    return UnitBox(box.low, max(box.width, rule.step))
