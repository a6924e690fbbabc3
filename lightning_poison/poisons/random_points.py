"""Points drawn at random, and label noise of a given rate: the baselines of every other selector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.functional.checks import check_number_field
from lightning_poison.functional.random_streams import generator
from lightning_poison.poisons.base import Candidates, Selector
from lightning_poison.poisons.budget import BudgetedSelector, Share, check_classes, existing_classes

__all__ = ["LabelNoise", "RandomPoints"]


@dataclass(frozen=True)
class RandomPoints(BudgetedSelector):
    """Draws points uniformly without replacement.

    At most one of ``count``, ``per_class`` and ``fraction`` is given; without any it is ``per_class=10``. With one
    seed a smaller budget draws a part of what a larger one draws, and per class the draw does not depend on the other
    classes. Points that the relabelling cannot change (those of class c under ``ToClass(c)``) are not drawn.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.

    Raises:
        UserError: more than one budget is given, or one is out of range.

    Example:
        >>> from lightning_poison.poisons import LabelFlips, TrainingSet
        >>> training_set = TrainingSet(torch.arange(100) % 10, num_classes=10)
        >>> flips = LabelFlips(RandomPoints(per_class=2, classes=[0, 7])).craft(training_set, seed=0)
        >>> flips.old_label.bincount().tolist()
        [2, 0, 0, 0, 0, 0, 0, 2]
    """

    def choose(self, candidates: Candidates, shares: list[Share], seed: int) -> list[Tensor]:  # noqa: ARG002  # the signature is shared
        """Draw each share from a stream of its own."""
        drawn = []
        for share in shares:
            keys = () if share.label is None else (share.label,)
            stream = generator(seed, "RandomPoints", *keys)
            drawn.append(share.members[torch.randperm(len(share.members), generator=stream)[: share.budget]])
        return drawn


@dataclass(frozen=True)
class LabelNoise(Selector):
    """Flips each label independently with one probability: the label-flip attack of Wang, Mianjy and Arora, 2021.

    The number of flips is random. A point's lot depends on the seed and its position alone, so with one seed the flips
    of a lower rate are among those of a higher one.

    Args:
        rate: the probability (beta), in [0, 1].
        classes: the classes that it is for; None: every class.

    Raises:
        UserError: the rate is no probability, no class is named, or (when flips are drawn) a class does not exist.

    Example:
        >>> from lightning_poison.poisons import LabelFlips, TrainingSet
        >>> training_set = TrainingSet(torch.arange(1000) % 2, num_classes=2)
        >>> len(LabelFlips(LabelNoise(rate=0.1)).craft(training_set, seed=0))
        103
    """

    rate: float = 0.1
    classes: list[int] | None = None

    def __post_init__(self) -> None:
        check_number_field(self, "rate", minimum=0, maximum=1, remedy="for 5 % write 0.05")
        object.__setattr__(self, "classes", check_classes(self.classes))

    def select(self, candidates: Candidates, seed: int) -> Tensor:
        """The points whose lot is below the rate."""
        classes = existing_classes(self.classes, candidates.training_set.num_classes)
        points = candidates.training_set.num_points
        lots = torch.rand(points, generator=generator(seed, "LabelNoise"), dtype=torch.float64)
        meant = torch.isin(candidates.labels, torch.tensor(classes, dtype=torch.int64))
        return (candidates.eligible & meant & (lots < self.rate)).nonzero()[:, 0]

    def check(self, candidates: Candidates) -> None:
        """Refuse a class that the data lack.

        Raises:
            UserError: there is one.
        """
        existing_classes(self.classes, candidates.training_set.num_classes)
