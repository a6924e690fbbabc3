"""Points drawn at random: the baseline of every other selector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.functional.random_streams import generator
from lightning_poison.poisons.budget import BudgetedSelector, Share
from lightning_poison.poisons.candidates import Candidates

__all__ = ["RandomPoints"]


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
