"""The points with most neighbours of their own class."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_poison.poisons.candidates import Candidates
from lightning_poison.poisons.graphs.class_graph_selector import ClassGraphSelector
from lightning_poison.poisons.ranking import ScoreSelector

__all__ = ["ClassGraphDegree"]


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
