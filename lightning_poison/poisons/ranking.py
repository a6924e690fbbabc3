"""Selectors that give every point a number and take the largest."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.poisons.budget import BudgetedSelector, Share, rising
from lightning_poison.poisons.candidates import Candidates

__all__ = ["ScoreSelector"]


class ScoreSelector(BudgetedSelector):
    """Takes the points of highest score in each share; of equal scores those that come first in the data.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
    """

    @abstractmethod
    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        """How much a flip of each point is worth.

        Args:
            candidates: all that can be flipped.
            index: shape (m,), int64, rising: the points to score.
            seed: for rules that draw.

        Returns:
            shape (m,), float; no NaN.
        """

    def choose(self, candidates: Candidates, shares: list[Share], seed: int) -> list[Tensor]:
        """Score all points once and take the best of each share."""
        index = rising(share.members for share in shares)
        if not any(share.budget for share in shares):
            return [share.members[:0] for share in shares]
        scores = self.scores(candidates, index, seed).double()
        if scores.isnan().any():
            bad = int(scores.isnan().sum())
            raise UserError(
                f"{type(self).__name__} gave {bad} of {len(index)} points no score (NaN); "
                "check that the inputs are finite and that the network does not answer NaN"
            )
        chosen = []
        for share in shares:
            own = scores[torch.searchsorted(index, share.members)]
            order = torch.argsort(own, descending=True, stable=True)
            chosen.append(share.members[order[: share.budget]])
        return chosen
