"""Points chosen by the length of their adversarial paths: nearest to the boundary, farthest, or alike.

How far a training point is from a network's decision boundary is followed once for all selectors that ask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_poison.attacks import adversarial_paths
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import (
    check_choice,
    check_integer,
    check_integer_field,
    check_kind,
    check_number,
)
from lightning_poison.functional.class_graph import order_ranks, quantile_buckets, width_buckets
from lightning_poison.functional.losses import margin
from lightning_poison.functional.pixels import Pixels
from lightning_poison.functional.random_streams import generator
from lightning_poison.nets.building import device_of
from lightning_poison.poisons.base import Candidates
from lightning_poison.poisons.budget import BudgetedSelector, ScoreSelector, Share, rising
from lightning_poison.poisons.surrogates import Surrogate, surrogate_network, surrogate_scores
from lightning_poison.poisons.training_set import TrainingSet
from lightning_poison.poisons.unit_box import UnitBox, input_range

__all__ = [
    "BoundaryDistances",
    "FarthestFromBoundary",
    "NearestToBoundary",
    "PathLengthBucket",
    "PathSelector",
    "PathTarget",
]

PathTarget = Literal["relabelled", "untargeted"]
_UNKNOWN = -2  # no aim: the path has not been followed
_PART_BYTES = 2**28  # of inputs that are followed at once
_LISTED = 20  # buckets whose sizes a message names


# --- selectors --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PathSelector(BudgetedSelector):
    """Follows the adversarial path of each candidate on a clean network, see :func:`attacks.adversarial_paths`.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        target: "relabelled": a path leads to the label that the point would get, where the clean data have that class,
            else, as "untargeted" always does, out of the point's own class.
        surrogate: the network; None: the one that came along with the data, else one that is trained now.
        step: length of a step, in pixel units (in those of the inputs where they leave [0, 1]).
        max_steps: the longest path that is followed.
        clip: keep paths within [0, 1]; they get longer. The thesis does not.

    Raises:
        UserError: an argument is out of its range.
    """

    target: PathTarget = "relabelled"
    surrogate: Surrogate | None = None
    step: Pixels = 0.01
    max_steps: int = 200
    clip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind("surrogate", self.surrogate, Surrogate, "TrainedSurrogate()", optional=True)
        if not isinstance(self.clip, bool):
            raise UserError(f"clip must be true or false, got {self.clip!r}")
        check_choice("target", self.target, ("relabelled", "untargeted"))
        step = check_number("step", float(Pixels(self.step)), minimum=1e-6, remedy="steps of 0.01 are usual")
        object.__setattr__(self, "step", step)
        check_integer_field(self, "max_steps", minimum=1)

    def aims(self, candidates: Candidates, index: Tensor) -> Tensor:
        """The class that each point's path leads to, shape (m,), int64; -1: out of its own."""
        new_labels = candidates.new_labels[index]
        known = new_labels < candidates.training_set.num_classes
        if self.target == "untargeted":
            known = torch.zeros_like(known)
        return torch.where(known, new_labels, -1)

    def distances(self, candidates: Candidates, index: Tensor, seed: int) -> BoundaryDistances:
        """How far the points are from the boundary.

        Args:
            candidates: all that can be flipped.
            index: shape (m,), int64: the points.
            seed: of the surrogate's training, where one is trained.

        Raises:
            UserError: the surrogate does not fit the data.
        """
        training_set = candidates.training_set
        network = surrogate_network(self.surrogate, training_set, seed)
        rule = _PathRule(self.step, self.max_steps, self.clip)
        return _boundary_distances(network, training_set, index, self.aims(candidates, index), rule)


@dataclass(frozen=True)
class PathLengthBucket(PathSelector):
    """Draws points at random from one bucket of adversarial-path length.

    The path of a point is followed on a clean network by unbounded sign-gradient steps until the prediction flips
    (Algorithm 2 of the thesis this package grew from). The points of each class, where they have different targets of
    each pair of classes, are sorted by the length of their paths and divided into buckets; the points to flip are drawn
    uniformly from one of them (section 4.3, figures 4.6b and 4.8). Classes lie at different distances from their
    neighbours, which is why buckets are never shared between them.

    Lengths are computed once for all buckets of a data set, and only for the classes that are asked for.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes (not of the bucket), in [0, 1].
        classes: the classes to choose from; None: every class.
        target: "relabelled": a path leads to the label that the point would get, where the clean data have that class,
            else, as "untargeted" always does, out of the point's own class.
        surrogate: the network; None: the one that came along with the data, else one that is trained now.
        step: length of a step, in pixel units (in those of the inputs where they leave [0, 1]).
        max_steps: the longest path that is followed; points whose path does not end are in the last bucket.
        clip: keep paths within [0, 1]; they get longer. The thesis does not.
        bucket: number of the bucket, from 0 (nearest to the boundary) to ``num_buckets`` - 1.
        num_buckets: how many buckets there are.
        edges: "quantile": all hold equally many points (of equal lengths those of smaller margin are nearer); "width":
            all span equally many lengths, up to the longest path that ended.

    Raises:
        UserError: an argument is out of its range; the bucket holds too few points, with the sizes of all buckets; the
            surrogate does not fit the data.

    Example:
        >>> from torch import nn
        >>> from lightning_poison.poisons import LabelFlips, TrainingSet
        >>> network = nn.Linear(1, 2)
        >>> network.load_state_dict({"weight": torch.tensor([[-1.0], [1.0]]), "bias": torch.tensor([0.5, -0.5])})
        <All keys matched successfully>
        >>> points = torch.arange(100)[:, None] / 100
        >>> data = torch.utils.data.TensorDataset(points, (points[:, 0] > 0.5).long())
        >>> training_set = TrainingSet(data.tensors[1], 2, dataset=data, network=network)
        >>> farthest = PathLengthBucket(count=3, classes=[0], bucket=4, num_buckets=5)
        >>> sorted(LabelFlips(farthest).craft(training_set, seed=0).index.tolist())
        [4, 6, 7]
    """

    bucket: int = 0
    num_buckets: int = 6
    edges: Literal["quantile", "width"] = "quantile"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer_field(self, "num_buckets", minimum=1)
        check_integer_field(self, "bucket", minimum=0, remedy="0 is the bucket nearest to the boundary")
        check_choice("edges", self.edges, ("quantile", "width"))
        if self.bucket >= self.num_buckets:
            raise UserError(
                f"bucket must lie in [0, {self.num_buckets - 1}], got {self.bucket}; "
                f"there are {self.num_buckets} buckets, numbered from 0"
            )

    @classmethod
    def sweep(cls, num_buckets: int = 6, **arguments: Any) -> dict[str, PathLengthBucket]:
        """A selector for every bucket, by name, nearest first.

        Args:
            num_buckets: how many.
            arguments: of all of them.

        Example:
            >>> list(PathLengthBucket.sweep(3, per_class=10))
            ['bucket 0 of 3', 'bucket 1 of 3', 'bucket 2 of 3']
        """
        num_buckets = check_integer("num_buckets", num_buckets, minimum=1)
        return {
            f"bucket {number} of {num_buckets}": cls(bucket=number, num_buckets=num_buckets, **arguments)
            for number in range(num_buckets)
        }

    def check(self, candidates: Candidates) -> None:
        """Refuse a budget that the classes, or buckets whose sizes are known beforehand, cannot fill.

        Raises:
            UserError: there is one.
        """
        super().check(candidates)
        if self.edges == "quantile":
            shares = [share for share in self.shares(candidates) if share.budget]
            index = rising(share.members for share in shares)
            any_order = self._by_pair(
                candidates, index, lambda rows, _: quantile_buckets(torch.arange(len(rows)), self.num_buckets)
            )
            self._draw(shares, index, any_order, torch.zeros(candidates.training_set.num_points))

    def choose(self, candidates: Candidates, shares: list[Share], seed: int) -> list[Tensor]:
        """Draw from the bucket: a point's lot depends on the seed and its position alone."""
        if not any(share.budget for share in shares):
            return [share.members[:0] for share in shares]
        self.check(candidates)
        index = rising(share.members for share in shares)
        stream = generator(seed, "PathLengthBucket")
        lots = torch.rand(candidates.training_set.num_points, generator=stream, dtype=torch.float64)
        return self._draw(shares, index, self.buckets(candidates, index, seed), lots)

    def buckets(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        """The bucket of each point among those of its class and target.

        Args:
            candidates: all that can be flipped.
            index: shape (m,), int64, rising: the points that are divided.
            seed: of the surrogate's training, where one is trained.

        Returns:
            shape (m,), int64, in [0, ``num_buckets`` - 1].

        Raises:
            UserError: no path of a class ends, or the surrogate does not fit the data.
        """
        distances = self.distances(candidates, index, seed)
        return self._by_pair(candidates, index, lambda rows, label: self._divided(distances[rows], label))

    def _by_pair(self, candidates: Candidates, index: Tensor, divide: Callable[[Tensor, int], Tensor]) -> Tensor:
        labels, aims = candidates.labels[index], self.aims(candidates, index)
        buckets = torch.empty_like(index)
        for label, aim in sorted(set(zip(labels.tolist(), aims.tolist(), strict=True))):
            rows = ((labels == label) & (aims == aim)).nonzero()[:, 0]
            buckets[rows] = divide(rows, label)
        return buckets

    def _draw(self, shares: list[Share], index: Tensor, buckets: Tensor, lots: Tensor) -> list[Tensor]:
        chosen = []
        for share in shares:
            own = buckets[torch.searchsorted(index, share.members)]
            inside = share.members[own == self.bucket]
            if len(inside) < share.budget:
                raise UserError(self._too_few(share, own))
            chosen.append(inside[torch.argsort(lots[inside], stable=True)[: share.budget]])
        return chosen

    def _divided(self, distances: BoundaryDistances, label: int) -> Tensor:
        if not distances.reached.any():
            raise UserError(
                f"no adversarial path of class {label} ends within {self.max_steps} steps of {self.step:g}; "
                "raise max_steps or step"
            )
        if self.edges == "width":
            return width_buckets(distances.length, distances.reached, self.num_buckets)
        ranks = order_ranks(distances.length + ~distances.reached, distances.margin)
        return quantile_buckets(ranks, self.num_buckets)

    def _too_few(self, share: Share, buckets: Tensor) -> str:
        whose = "all classes together" if share.label is None else f"class {share.label}"
        sizes = torch.bincount(buckets, minlength=self.num_buckets).tolist()
        held = f"holds {sizes[self.bucket]} points of {whose}" if sizes[self.bucket] else f"is empty for {whose}"
        remedy = "edges=quantile, " if self.edges == "width" else ""
        listed = ", ".join(map(str, sizes)) if len(sizes) <= _LISTED else f"{min(sizes)} to {max(sizes)}"
        return (
            f"bucket {self.bucket} {held}, but {share.budget} must be drawn from it; the {self.num_buckets} buckets "
            f"hold {listed} points: take {remedy}fewer buckets or a smaller budget"
        )


class _ByDistance(PathSelector, ScoreSelector):
    def _places(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        """The place of each point in the order of distances, from 0 for the nearest, float64."""
        distances = self.distances(candidates, index, seed)
        return order_ranks(distances.length + ~distances.reached, distances.margin).double()


@dataclass(frozen=True)
class FarthestFromBoundary(_ByDistance):
    """Flips the points whose adversarial path is longest, see :class:`PathLengthBucket` for the paths.

    A path that does not end within ``max_steps`` counts as the longest. Of equal lengths the point that the network is
    surer of (by its margin) counts as farther.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        target: "relabelled": a path leads to the label that the point would get, where the clean data have that class,
            else, as "untargeted" always does, out of the point's own class.
        surrogate: the network; None: the one that came along with the data, else one that is trained now.
        step: length of a step, in pixel units (in those of the inputs where they leave [0, 1]).
        max_steps: the longest path that is followed.
        clip: keep paths within [0, 1]; they get longer. The thesis does not.

    Raises:
        UserError: an argument is out of its range, or the surrogate does not fit the data.

    Example:
        >>> FarthestFromBoundary(per_class=5, target="untargeted").max_steps
        200
    """

    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        """The place in the order of distances, from 0 for the nearest."""
        return self._places(candidates, index, seed)


@dataclass(frozen=True)
class NearestToBoundary(_ByDistance):
    """Flips the points whose adversarial path is shortest, see :class:`PathLengthBucket` for the paths.

    Points that the network gets wrong (length 0) come first. Of equal lengths the point that the network is less sure
    of (by its margin) counts as nearer.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        target: "relabelled": a path leads to the label that the point would get, where the clean data have that class,
            else, as "untargeted" always does, out of the point's own class.
        surrogate: the network; None: the one that came along with the data, else one that is trained now.
        step: length of a step, in pixel units (in those of the inputs where they leave [0, 1]).
        max_steps: the longest path that is followed.
        clip: keep paths within [0, 1]; they get longer. The thesis does not.

    Raises:
        UserError: an argument is out of its range, or the surrogate does not fit the data.

    Example:
        >>> NearestToBoundary(per_class=5, step=0.02).step
        0.02
    """

    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        """The place in the order of distances, from 0 for the farthest."""
        return -self._places(candidates, index, seed)


# --- boundary distances -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _PathRule:
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


def _boundary_distances(
    network: nn.Module, training_set: TrainingSet, index: Tensor, aims: Tensor, rule: _PathRule
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
    rule: _PathRule,
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


def _box(training_set: TrainingSet, rule: _PathRule) -> UnitBox | None:
    """The range of inputs that are no pixels, which paths measure in its own units; None: they are pixels."""
    box = input_range(training_set)
    if box is None:
        return None
    if rule.clip:
        high = box.low + box.width
        raise UserError(f"clip keeps paths within [0, 1], but the inputs lie in [{box.low:.4g}, {high:.4g}]; leave it")
    return UnitBox(box.low, max(box.width, rule.step))
