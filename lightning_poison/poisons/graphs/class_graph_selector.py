"""What the selectors that look at class graphs have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lightning_poison.functional.close_pairs import check_exponent
from lightning_poison.poisons.budget import BudgetedSelector
from lightning_poison.poisons.graphs.neighbourhoods import Neighbourhoods
from lightning_poison.poisons.graphs.spaces import Space

__all__ = ["ClassGraphSelector", "Exponent"]

Exponent = float | Literal["inf"]
"""The p of an l_p norm, as it can be written in Python, in YAML and on the command line."""


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
