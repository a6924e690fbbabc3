"""Which training points a surrogate is fitted to, which can be flipped, and which judge the flips."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.random_streams import generator
from lightning_poison.poisons.budget import Share
from lightning_poison.poisons.candidates import Candidates

__all__ = ["Roles"]

_OUTER_SHARE = 5  # at most one of so many points is an outer point


@dataclass(frozen=True, eq=False)
class Roles:
    """A part of the training set, and what its points are used for.

    Args:
        index: shape (n,), int64, rising: the points that are looked at, as indices of the training set.
        training: shape (t,), int64: positions in ``index`` of the points that surrogates are fitted to.
        outer: shape (m,), int64: positions of the held-out points on whose attacked copies flips are judged.
        flippable: shape (c,), int64: positions of the points to choose from.
        share: shape (c,), int64: the share of the budget that each of them belongs to.
    """

    index: Tensor
    training: Tensor
    outer: Tensor
    flippable: Tensor
    share: Tensor

    @classmethod
    def draw(cls, candidates: Candidates, shares: list[Share], max_points: int, outer: int, seed: int) -> Roles:
        """Take the classes that flips come from and go to, and divide their points.

        Where there are more than ``max_points``, a random part of each class is taken. Outer points are not flipped,
        and a share that is flipped as a whole has none.

        Args:
            candidates: all that can be flipped.
            shares: what is chosen from; one at least has a budget.
            max_points: how many points to look at.
            outer: how many of them are outer points, at most a fifth of them and of what can be flipped.
            seed: of the draws.

        Raises:
            UserError: the budget is more than half of ``max_points``.
        """
        budget = sum(share.budget for share in shares)
        if 2 * budget > max_points and sum(len(share.members) for share in shares) > max_points:
            raise UserError(
                f"max_points must be at least twice the {budget} flips, got {max_points}; raise it, or use Medoids for "
                "large budgets"
            )
        rank = torch.randperm(len(candidates.labels), generator=generator(seed, "MetaFlips", "points"))
        shares = [share for share in shares if share.budget]
        index = _looked_at(candidates, shares, max_points, rank)
        share_of = torch.full_like(rank, -1)
        for number, share in enumerate(shares):
            share_of[share.members] = number
        share_of, rank = share_of[index], rank[index]
        held_out = torch.zeros(len(index), dtype=torch.bool)
        for number, share in enumerate(shares):
            members = (share_of == number).nonzero()[:, 0]
            count = min(-(-outer // len(shares)), max(len(members) // _OUTER_SHARE, 1), len(members) - share.budget)
            held_out[members[rank[members].argsort()[:count]]] = True
        flippable = ((share_of >= 0) & ~held_out).nonzero()[:, 0]
        outer_points = held_out.nonzero()[:, 0]
        return cls(index, (~held_out).nonzero()[:, 0], outer_points, flippable, share_of[flippable])


def _looked_at(candidates: Candidates, shares: list[Share], max_points: int, rank: Tensor) -> Tensor:
    """Points of the classes concerned; where they are too many, of each class the first in ``rank``."""
    labels = candidates.labels
    members = torch.cat([share.members for share in shares])
    classes = torch.unique(torch.cat([labels[members], candidates.new_labels[members]]))
    pool = torch.isin(labels, classes).nonzero()[:, 0]
    if len(pool) <= max_points:
        return pool
    taken = torch.zeros_like(labels, dtype=torch.bool)
    for label in classes:
        of_class = (labels == label).nonzero()[:, 0]
        taken[of_class[rank[of_class].argsort()[: len(of_class) * max_points // len(pool)]]] = True
    for share in shares:
        taken[share.members[rank[share.members].argsort()[: 2 * share.budget]]] = True
    return taken.nonzero()[:, 0]
