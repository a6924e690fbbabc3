"""Points that between them are neighbours of as many points of their class as possible."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.functional.class_graph import ClassGraph
from lightning_poison.functional.dominating_set import dominating_set
from lightning_poison.poisons.budget import Share
from lightning_poison.poisons.candidates import Candidates
from lightning_poison.poisons.graphs.class_graph_selector import ClassGraphSelector

__all__ = ["DominatingSet", "dominating_order"]


@dataclass(frozen=True)
class DominatingSet(ClassGraphSelector):
    """Takes, again and again, the point with most neighbours that no point taken so far is a neighbour of.

    Unlike the points of highest degree these do not crowd into one neighbourhood (Algorithm 4, section 6.1 of the
    thesis this package grew from, with the order of its lines 7 and 8 put right: see the function of this name). Where
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
