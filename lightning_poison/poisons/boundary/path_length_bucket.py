"""Points whose adversarial paths are about equally long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.buckets import order_ranks, quantile_buckets, width_buckets
from lightning_poison.functional.checks import check_choice, check_integer, check_integer_field
from lightning_poison.functional.random_streams import generator
from lightning_poison.poisons.boundary.distances import BoundaryDistances
from lightning_poison.poisons.boundary.path_selector import PathSelector
from lightning_poison.poisons.budget import Share, rising
from lightning_poison.poisons.candidates import Candidates

__all__ = ["PathLengthBucket"]

_LISTED = 20


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
