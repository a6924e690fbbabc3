"""Points that stand out in two spaces at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_poison.functional.checks import check_choice
from lightning_poison.poisons.budget import Share
from lightning_poison.poisons.candidates import Candidates
from lightning_poison.poisons.graphs.class_graph_selector import ClassGraphSelector
from lightning_poison.poisons.graphs.dominating_set import dominating_order
from lightning_poison.poisons.graphs.neighbourhoods import Neighbourhoods
from lightning_poison.poisons.graphs.spaces import FeatureSpace, Space

__all__ = ["ClassGraphIntersection", "best_of_both"]


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
