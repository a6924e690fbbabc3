"""Points chosen on class graphs, which join points of a class that lie close together.

Those of highest degree, those of a dominating set, and those that stand out in two spaces at once: section 6.1 of the
thesis this package grew from. The graphs themselves are in ``functional/class_graph.py``, the spaces in ``spaces.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_kind, check_number_field
from lightning_poison.functional.class_graph import ClassGraph, dominating_set, neighbour_counts
from lightning_poison.functional.close_pairs import check_exponent, close_pairs, distance_quantile
from lightning_poison.poisons.base import Candidates
from lightning_poison.poisons.budget import BudgetedSelector, ScoreSelector, Share
from lightning_poison.poisons.graphs.spaces import FeatureSpace, InputSpace, Space
from lightning_poison.poisons.training_set import TrainingSet

__all__ = [
    "ClassGraphDegree",
    "ClassGraphIntersection",
    "ClassGraphSelector",
    "DominatingSet",
    "Exponent",
    "Neighbourhoods",
    "best_of_both",
    "dominating_order",
    "usual_quantile",
]

Exponent = float | Literal["inf"]
"""The p of an l_p norm, as it can be written in Python, in YAML and on the command line."""
_SHARE, _NEIGHBOURS = 0.01, 10


# --- neighbourhoods ---------------------------------------------------------------------------------------------------


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


# --- selectors --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassGraphSelector(BudgetedSelector):
    """Joins the points of each class that lie close together.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        space: where distances are taken; None: between the inputs.
        gamma: the distance up to which points are joined.
        quantile: the share of the pairs of a class that are joined; with neither it is a hundredth, or more where that
            leaves a point fewer than ten neighbours.
        p: exponent of the norm, at least 1; "inf": the largest difference.

    Raises:
        UserError: an argument is out of its range, or both ``gamma`` and ``quantile`` are given.
    """

    space: Space | None = None
    gamma: float | None = None
    quantile: float | None = None
    p: Exponent = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.p == math.inf:
            object.__setattr__(self, "p", "inf")  # JSON, where flip lists record it, knows no infinity
        if self.p != "inf":
            check_exponent(self.p)
        _ = self.neighbourhoods  # checks the arguments

    @property
    def neighbourhoods(self) -> Neighbourhoods:
        """Which points are joined."""
        return Neighbourhoods(self.space, self.gamma, self.quantile, float(self.p))


@dataclass(frozen=True)
class ClassGraphDegree(ClassGraphSelector, ScoreSelector):
    """Takes the points that lie where their class is dense.

    The degree in the class graph stands for the density (Algorithm 3, section 6.1 of the thesis this package grew
    from). The thesis found these flips weaker than random ones: flips that lie close together in the middle of a class
    are memorised late and spoil one neighbourhood.

    Of points of one degree those that come first in the data are taken. Edges are not kept: the memory is that of the
    points, however many are neighbours.

    Args:
        count: how many points in all; degrees in different classes are then compared.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        space: where distances are taken; None: between the inputs.
        gamma: the distance up to which points are joined.
        quantile: the share of the pairs of a class that are joined; with neither it is a hundredth, or more where that
            leaves a point fewer than ten neighbours.
        p: exponent of the norm, at least 1; "inf": the largest difference.

    Raises:
        UserError: an argument is out of its range, both ``gamma`` and ``quantile`` are given, or (when flips are
            drawn) a class has no edge, or every one.

    Example:
        >>> import torch
        >>> from lightning_poison.poisons import LabelFlips, TrainingSet
        >>> data = [(torch.tensor([position]), 0) for position in (0.0, 1.0, 2.0, 7.0)]
        >>> training_set = TrainingSet(torch.zeros(4, dtype=torch.int64), 2, dataset=data)
        >>> LabelFlips(ClassGraphDegree(count=1, gamma=1.0)).craft(training_set, seed=0).index
        tensor([1])
    """

    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        """The degrees, shape (m,), int64."""
        return self.neighbourhoods.degrees(candidates.training_set, index, seed)


@dataclass(frozen=True)
class DominatingSet(ClassGraphSelector):
    """Takes, again and again, the point with most neighbours that no point taken so far is a neighbour of.

    Unlike the points of highest degree these do not crowd into one neighbourhood (Algorithm 4, section 6.1 of the
    thesis this package grew from, with the order of its lines 7 and 8 put right: see
    :func:`functional.class_graph.dominating_set`). Where
    every point is dominated and budget is left, it goes on by degree. Of equal points the first in the data is taken.

    Args:
        count: how many points in all; they go to the classes where they dominate most.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        space: where distances are taken; None: between the inputs.
        gamma: the distance up to which points are joined.
        quantile: the share of the pairs of a class that are joined; with neither it is a hundredth, or more where that
            leaves a point fewer than ten neighbours.
        p: exponent of the norm, at least 1; "inf": the largest difference.

    Raises:
        UserError: an argument is out of its range, both ``gamma`` and ``quantile`` are given, or (when flips are
            drawn) a class has no edge, or every one, or there are too many for the memory.

    Example:
        >>> from lightning_poison.poisons import LabelFlips, TrainingSet
        >>> data = [(torch.tensor([position]), 0) for position in (0.0, 1.0, 1.1, 2.0, 7.0, 8.0)]
        >>> training_set = TrainingSet(torch.zeros(6, dtype=torch.int64), 2, dataset=data)
        >>> LabelFlips(DominatingSet(count=2, gamma=1.0)).craft(training_set, seed=0).index
        tensor([1, 4])
    """

    def choose(self, candidates: Candidates, shares: list[Share], seed: int) -> list[Tensor]:
        """Dominate each share by itself."""
        chosen = []
        for share in shares:
            if share.budget in (0, len(share.members)):
                chosen.append(share.members[: share.budget])
                continue
            graph = self.neighbourhoods.graph(candidates.training_set, share.members, seed)
            chosen.append(share.members[dominating_order(graph, share.budget)])
        return chosen


def dominating_order(graph: ClassGraph, budget: int) -> Tensor:
    """The points in the order in which they are taken: a dominating set, then the others by falling degree.

    Args:
        graph: n points.
        budget: how many points, at most n.

    Returns:
        shape (``budget``,), int64.

    Example:
        >>> path = ClassGraph.from_pairs(5, [(torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 3, 4]))])
        >>> dominating_order(path, 4)
        tensor([1, 3, 2, 0])
    """
    first = dominating_set(graph, budget)
    by_degree = torch.argsort(graph.degrees, descending=True, stable=True)
    return torch.cat([first, by_degree[~torch.isin(by_degree, first)]])[:budget]


@dataclass(frozen=True)
class ClassGraphIntersection(ClassGraphSelector):
    """Takes points that a class graph in each of two spaces proposes.

    For a budget b each space proposes 2b points, and b of those that both propose are taken (section 6.1.4 of the
    thesis this package grew from: input space and feature space). The thesis does not say which b: here those whose two
    places add up to least. Nor what happens when fewer are proposed by both: then the points of better place that one
    space proposes fill up, and the flip list's provenance says how many points both proposed ("proposed_by_both").

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        space: the first space; None: that of the inputs.
        gamma: the distance up to which points are joined in the first space.
        quantile: the share of the pairs of a class that are joined, in each space whose distance is not given; None: a
            hundredth, or more where that leaves a point fewer than ten neighbours.
        p: exponent of the norm in both, at least 1; "inf": the largest difference.
        second_space: the second space; None: ``FeatureSpace()``.
        second_gamma: the distance up to which points are joined in the second space.
        propose: "degree" (Algorithm 3) or "dominating_set" (Algorithm 4).

    Raises:
        UserError: an argument is out of its range, or (when flips are drawn) a class has no edge, or every one.
    """

    second_space: Space | None = None
    second_gamma: float | None = None
    propose: Literal["degree", "dominating_set"] = "degree"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("propose", self.propose, ("degree", "dominating_set"))
        _ = self.second_neighbourhoods  # checks the arguments

    @property
    def neighbourhoods(self) -> Neighbourhoods:
        """Which points are joined in the first space."""
        quantile = None if self.gamma is not None and self.second_gamma is None else self.quantile
        return Neighbourhoods(self.space, self.gamma, quantile, float(self.p))

    @property
    def second_neighbourhoods(self) -> Neighbourhoods:
        """Which points are joined in the second space."""
        quantile = None if self.second_gamma is not None and self.gamma is None else self.quantile
        return Neighbourhoods(self.second_space or FeatureSpace(), self.second_gamma, quantile, float(self.p))

    def choose(self, candidates: Candidates, shares: list[Share], seed: int) -> list[Tensor]:
        """Let both spaces propose points of each share; how many they agreed on is noted."""
        chosen, both = [], 0
        for share in shares:
            if share.budget in (0, len(share.members)):
                chosen.append(share.members[: share.budget])
                both += share.budget
                continue
            first, second = (
                self._proposed(rule, candidates, share, seed)
                for rule in (self.neighbourhoods, self.second_neighbourhoods)
            )
            best, common = best_of_both(first, second, share.budget)
            chosen.append(share.members[best])
            both += min(common, share.budget)
        candidates.notes["proposed_by_both"] = both
        return chosen

    def _proposed(self, rule: Neighbourhoods, candidates: Candidates, share: Share, seed: int) -> Tensor:
        """Positions in the share, best first."""
        count = min(2 * share.budget, len(share.members))
        if self.propose == "dominating_set":
            return dominating_order(rule.graph(candidates.training_set, share.members, seed), count)
        degrees = rule.degrees(candidates.training_set, share.members, seed)
        return torch.argsort(degrees, descending=True, stable=True)[:count]


def best_of_both(first: Tensor, second: Tensor, budget: int) -> tuple[Tensor, int]:
    """Points of two lists: those in both by the sum of their places, then the others by the place they have.

    Args:
        first: shape (m,), int64: distinct points, best first.
        second: shape (m',), int64: likewise.
        budget: how many points, at most as many as the lists hold together.

    Returns:
        shape (``budget``,), int64; how many points both lists hold.

    Example:
        >>> best_of_both(torch.tensor([7, 3, 5]), torch.tensor([5, 3, 9]), budget=3)
        (tensor([3, 5, 7]), 2)
    """
    places = [{point: place for place, point in enumerate(proposed.tolist())} for proposed in (first, second)]
    common = places[0].keys() & places[1].keys()
    both = sorted(common, key=lambda point: (places[0][point] + places[1][point], point))
    alone = {point: place for proposed in places for point, place in proposed.items() if point not in common}
    rest = sorted(alone, key=lambda point: (alone[point], point))
    return torch.tensor([*both, *rest][:budget], dtype=torch.int64), len(both)
