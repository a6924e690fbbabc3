"""Labels that are wrong by chance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.functional.checks import check_number_field
from lightning_poison.functional.random_streams import generator
from lightning_poison.poisons.base import Selector
from lightning_poison.poisons.candidates import Candidates
from lightning_poison.poisons.classes import check_classes, existing_classes

__all__ = ["LabelNoise"]


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
