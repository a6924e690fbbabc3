r"""How many label changes an adversary needs to move the votes of many learners.

A *gap* is a sum over voters that the adversary wants to bring down by at least ``gap``. Changing voter t's ballot
takes at most ``gains[t]`` off it, and the rest of the sum does not depend on that voter. What a changed label can
reach is what the classes of this module tell apart:

==========================  =========================================================================================
:class:`OneVote`            one label change makes one voter say anything: every label is used by one voter
:class:`PricedVotes`        the same, but voter t says something else only after ``costs[t]`` changes among its labels
:class:`SharedParts`        one label change makes all the voters that use its part say anything
==========================  =========================================================================================

Each gives a lower bound on the number of label changes that take the gap off; it is exact for the first two where
voters obey no other rule. **Proof.** The gap falls by at most the gains of the voters that changed.
``OneVote``: r changes alter at most r voters, and r largest gains add up to no less than any r gains.
``PricedVotes``: voters do not share labels, so a set of changed voters costs the sum of their costs; the cheapest set
that gains enough is a knapsack, solved exactly below. ``SharedParts``: changes in the parts P alter no voter outside
the union of those that use a part of P, whose gains add up to at most the sum over P of each part's gains (Wang,
Levine and Feizi, 2022, "Improved certified defenses against data poisoning with (deterministic) finite aggregation",
theorem 2, here for changed labels), which is at most the sum of the |P| largest. QED. All numbers are integers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["UNREACHABLE", "Adversary", "OneVote", "PricedVotes", "SharedParts"]

UNREACHABLE = 2**40
"""Stands for "no number of changes": larger than any data set, and sums of it still fit into int64."""


class Adversary(ABC):
    """What label changes can do to the voters of an election."""

    @abstractmethod
    def fewest(self, gap: Tensor, gains: Tensor) -> Tensor:
        """A lower bound on the label changes that are needed to take ``gap`` off.

        Args:
            gap: shape (m,), int64.
            gains: shape (m, T), int64, >= 0: the most that each voter's change takes off.

        Returns:
            shape (m,), int64; 0 where the gap is not positive, UNREACHABLE where all gains together do not reach it.
        """

    def rows(self, rows: slice) -> Adversary:  # noqa: ARG002  # most adversaries are the same for every point
        """The adversary of some of the points."""
        return self


@dataclass(frozen=True)
class OneVote(Adversary):
    """One label change makes one voter say anything.

    Args:
        changeable: shape (T,), bool: voters that have training labels at all; None: every one.

    Example:
        >>> OneVote().fewest(torch.tensor([3]), torch.tensor([[2, 2, 1]])).tolist()
        [2]
    """

    changeable: Tensor | None = None

    def fewest(self, gap: Tensor, gains: Tensor) -> Tensor:
        """The number of largest gains that reach the gap."""
        if self.changeable is not None:
            gains = gains * self.changeable
        needed, left = torch.zeros_like(gap), gap.clamp(min=0)
        for gain in range(int(gains.max()) if gains.numel() else 0, 0, -1):
            taken = torch.minimum((gains == gain).sum(1), -(-left // gain))
            needed, left = needed + taken, (left - gain * taken).clamp(min=0)
        return torch.where(left > 0, UNREACHABLE, needed)


@dataclass(frozen=True)
class PricedVotes(Adversary):
    """A voter says something else only after a number of changes among its own labels.

    Args:
        costs: shape (m, T), integers >= 1: that number for each point and voter; UNREACHABLE where nothing helps.

    Example:
        >>> PricedVotes(torch.tensor([[5, 1, 1]])).fewest(torch.tensor([2]), torch.tensor([[2, 1, 1]])).tolist()
        [2]
    """

    costs: Tensor

    def fewest(self, gap: Tensor, gains: Tensor) -> Tensor:
        """The cheapest set of voters: for each number of those of the large gain, the cheapest of gain 1 besides."""
        large = max(int(gains.max()), 2) if gains.numel() else 2
        if ((gains > 1) & (gains < large)).any():
            raise ValueError("gains must be 0, 1 or one larger number")
        of_large, of_one = self._cheapest(gains == large), self._cheapest(gains == 1)
        most = gains.shape[1]
        taken = torch.arange(most + 1, device=gap.device)
        rest = (gap[:, None] - large * taken).clamp(min=0)
        cost = of_large + torch.where(rest > most, UNREACHABLE, of_one.gather(1, rest.clamp(max=most)))
        return cost.amin(1).clamp(max=UNREACHABLE)

    def _cheapest(self, chosen: Tensor) -> Tensor:
        """Cost of the k cheapest chosen voters for k = 0 ... T, shape (m, T + 1)."""
        costs = torch.where(chosen, self.costs.long(), UNREACHABLE).sort(1).values.cumsum(1)
        return torch.nn.functional.pad(costs, (1, 0)).clamp(max=UNREACHABLE)

    def rows(self, rows: slice) -> PricedVotes:
        """The costs of some of the points."""
        return PricedVotes(self.costs[rows])


@dataclass(frozen=True)
class SharedParts(Adversary):
    """One label change makes every voter that uses its part say anything.

    Args:
        users: shape (P, d), int64: the voters that are trained on each part. Leave out parts without points.

    Example:
        >>> SharedParts(torch.tensor([[0, 1], [1, 2]])).fewest(torch.tensor([4]), torch.tensor([[2, 1, 1]])).tolist()
        [2]
    """

    users: Tensor

    def fewest(self, gap: Tensor, gains: Tensor) -> Tensor:
        """The number of parts whose gains, the largest first, reach the gap."""
        if not len(self.users):
            return torch.where(gap > 0, UNREACHABLE, 0)
        of_parts = sum((gains[:, voters] for voters in self.users.T), torch.zeros((), dtype=torch.int64))
        reached = of_parts.sort(1, descending=True).values.cumsum(1)
        below = torch.searchsorted(reached, gap[:, None])[:, 0]
        return torch.where(gap <= 0, 0, torch.where(below < reached.shape[1], below + 1, UNREACHABLE))
