"""The class graphs of the points that a selector chooses from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_kind, check_number_field
from lightning_poison.functional.class_graph import ClassGraph, neighbour_counts
from lightning_poison.functional.close_pairs import check_exponent, close_pairs, distance_quantile
from lightning_poison.poisons.graphs.spaces import InputSpace, Space
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["Neighbourhoods", "usual_quantile"]

_SHARE, _NEIGHBOURS = 0.01, 10


def usual_quantile(points: int) -> float:
    """The share of pairs that are joined where the user does not say: a hundredth, or what makes ten neighbours.

    Example:
        >>> usual_quantile(6001), usual_quantile(101), usual_quantile(4)
        (0.01, 0.1, 0.5)
    """
    return max(_SHARE, min(_NEIGHBOURS / (points - 1), 0.5)) if points > 1 else 0.5


@dataclass(frozen=True)
class Neighbourhoods:
    """Which points are neighbours: those of one class within ``gamma`` of each other.

    Args:
        space: where distances are taken; None: between the inputs.
        gamma: the distance, the same for all classes.
        quantile: the share of the pairs of a class that are neighbours, which gives each class a ``gamma`` of its own.
        p: exponent of the norm.
        default_quantile: the quantile of a class of a size, where neither is given.

    Raises:
        UserError: both ``gamma`` and ``quantile`` are given, or one is out of range.
    """

    space: Space | None = None
    gamma: float | None = None
    quantile: float | None = None
    p: float = 2.0
    default_quantile: Callable[[int], float] = usual_quantile

    def __post_init__(self) -> None:
        check_kind("space", self.space, Space, "PCASpace()", optional=True)
        if self.gamma is not None and self.quantile is not None:
            raise UserError(
                f"one of gamma and quantile is given at most, got gamma={self.gamma} and quantile={self.quantile}; "
                "set the other to null"
            )
        if self.gamma is not None:
            check_number_field(self, "gamma", minimum=0)
        if self.quantile is not None:
            check_number_field(self, "quantile", minimum=0, maximum=1, remedy="for 1 % write 0.01")
        check_exponent(self.p)

    def degrees(self, training_set: TrainingSet, members: Tensor, seed: int) -> Tensor:
        """How many neighbours each point has; no edges are kept.

        Args:
            training_set: the clean data.
            members: shape (m,), int64, rising: the points of the graph.
            seed: of the space.

        Returns:
            shape (m,), int64.

        Raises:
            UserError: a class of three points or more has no edge, or every one, so that all its points are alike.
        """
        degrees = torch.zeros(len(members), dtype=torch.int64)
        with training_set.progress("class graph", len(members)) as advance:
            for label, own, points, gamma in self._classes(training_set, members, seed):
                degrees[own] = neighbour_counts(points, gamma, self.p, advance)
                self._check(degrees[own], label, points, gamma)
        return degrees

    def graph(self, training_set: TrainingSet, members: Tensor, seed: int) -> ClassGraph:
        """The graph of the points, numbered as in ``members``; points of different classes are not joined.

        Args:
            training_set: the clean data.
            members: shape (m,), int64, rising: the points of the graph.
            seed: of the space.

        Raises:
            UserError: a class of three points or more has no edge, or every one; or there are too many edges.
        """
        classes = list(self._classes(training_set, members, seed))

        def pairs() -> Iterator[tuple[Tensor, Tensor]]:
            for _, own, points, gamma in classes:
                for first, second in close_pairs(points, gamma, self.p, advance):
                    yield own[first.long()], own[second.long()]

        with training_set.progress("class graph", len(members)) as advance:
            graph = ClassGraph.from_pairs(len(members), pairs())
        for label, own, points, gamma in classes:
            self._check(graph.degrees[own], label, points, gamma)
        return graph

    def _classes(
        self, training_set: TrainingSet, members: Tensor, seed: int
    ) -> Iterator[tuple[int, Tensor, Tensor, float]]:
        """Each class: its label, where its points stand in ``members``, their vectors, and its distance."""
        everything = (self.space or InputSpace()).points(training_set, seed)
        labels = training_set.labels[members]
        for label in labels.unique().tolist():  # type: ignore[no-untyped-call]  # torch's
            own = (labels == label).nonzero()[:, 0]
            points = everything[members[own]]
            yield label, own, points, self._distance(points)

    def _distance(self, points: Tensor) -> float:
        if self.gamma is not None:
            return self.gamma
        if len(points) < 2:
            return 0.0
        share = self.default_quantile(len(points)) if self.quantile is None else self.quantile
        return distance_quantile(points, share, self.p)

    def _check(self, degrees: Tensor, label: int, points: Tensor, gamma: float) -> None:
        size = len(degrees)
        if size < 3 or 0 < int(degrees.sum()) < size * (size - 1):
            return
        given = f"quantile={self.quantile}, " if self.quantile is not None else ""
        joined = "none" if int(degrees.sum()) == 0 else "all"
        halfway = distance_quantile(points, 0.5, self.p)
        if joined == "all" and distance_quantile(points, 1.0, self.p) == 0:
            raise UserError(
                f"the points of class {label} must differ for a class graph, but all are equal; take another space, or "
                "leave the class out"
            )
        raise UserError(
            f"gamma must join some pairs of class {label} and not all, got {given}gamma={gamma:.6g}, which joins "
            f"{joined} (half of the pairs lie within {halfway:.6g}); "
            f"{'raise' if joined == 'none' else 'lower'} gamma or quantile"
        )
