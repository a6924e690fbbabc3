r"""Elections among learners on parts of the data, and how many label changes their results outlast.

Notation: T voters; :math:`N_j` of them put class j first. Class a *precedes* b if :math:`N_a > N_b`, or they are equal
and a < b. So j precedes c exactly if the gap :math:`N_c - N_j + [c < j]` is not positive. A changed voter takes off
this gap at most 2 if it voted for c, 0 if it voted for j, else 1.

**Plurality.** The class that precedes all others wins. The result c stays until some j precedes it, so with :math:`f_j`
the fewest label changes that take the gap of j off it outlasts :math:`\min_j f_j - 1` changes (Levine and Feizi, 2021,
"Deep partition aggregation", SS-DPA). What the changes can do, and hence :math:`f_j`, is a matter of the adversary
(below); under ``OneVote`` and ``PricedVotes`` the radius is exact where voters can be made to say anything.

**Run-off.** The two first classes meet: each voter prefers the one that it ranks higher, and the class that more
voters prefer wins, the lower index if they are even (Rezaei et al., 2023, "Run-off election"). Let c win and d be the
other finalist. If c no longer wins, one of these holds:

* two classes j and k precede c. The same changes take off both gaps, :math:`g_j` and :math:`g_k`, so they are no fewer
  than either asks for alone; and no fewer than the sum :math:`g_j + g_k` asks for, from which one changed voter takes
  at most 3 if it voted for c (2 off the gap of the class that it votes for now, 1 off the other), 0 if it voted for j
  or k (what a change takes off one gap it adds to the other), else 1.
* a class b meets c in the run-off and is preferred. From the second round's gap
  :math:`M_c - M_b + [c < b]` one changed voter takes 2 if it prefers c to b, else 0. And if b is not d, then b
  precedes d, whose gap is as above. The same changes do both: with any weights :math:`w, w' \ge 0` they are no fewer
  than the sum of w times the one gap and w' times the other asks for, from which a voter takes at most w times what
  it takes off the one and w' times what it takes off the other.

The smallest number over all these cases, less one, is outlasted. QED. The first case is what Rezaei et al. bound by
dynamic programming; the weights 1 and 2 are enough for the second, whose gains are 0, 1 and 2. It is a lower bound, and
under ``OneVote`` it was the exact number in all elections that were enumerated.

**Adversaries.** How many label changes are needed to move the votes of many learners? A *gap* is a sum over voters that
the adversary wants to bring down by at least ``gap``. Changing voter t's ballot takes at most ``gains[t]`` off it, and
the rest of the sum does not depend on that voter. What a changed label can reach is what the classes of this module
tell apart:

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
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer
from lightning_poison.functional.ridge import rows_per_chunk

__all__ = [
    "UNREACHABLE",
    "Adversary",
    "OneVote",
    "PricedVotes",
    "SharedParts",
    "certify_plurality",
    "certify_run_off",
    "integers_up_to",
    "rank_classes",
]

UNREACHABLE = 2**40
"""Stands for "no number of changes": larger than any data set, and sums of it still fit into int64."""
_WEIGHTS = ((0, 1), (1, 1), (1, 2), (2, 1))  # of the gap of being preferred, and of that of being in the run-off


# --- elections --------------------------------------------------------------------------------------------------------


def certify_plurality(votes: Tensor, num_classes: int, adversary: Adversary, num_labels: int) -> LabelFlipCertificate:
    """Certify the plurality vote; theorem and proof stand at the head of this module.

    Args:
        votes: shape (m, T), integers in [0, K): the class that each voter puts first.
        num_classes: K.
        adversary: what label changes do to the voters.
        num_labels: n, the number of training labels: the radius where nothing changes the result.

    Raises:
        UserError: a vote is no class, or there is no voter.

    Example:
        >>> from lightning_poison.certificates.partitions import OneVote
        >>> certify_plurality(torch.tensor([[0, 0, 0, 0, 1]]), 2, OneVote(), num_labels=50)
        LabelFlipCertificate(prediction=tensor([0]), radius=tensor([1]))
    """
    num_classes = check_integer("num_classes", num_classes, minimum=1)
    _check_voters(votes, 2)
    # as Python's integers: a small dtype would wrap the number of classes that it is compared with
    if votes.numel() and not 0 <= int(votes.min()) <= int(votes.max()) < num_classes:
        raise UserError(f"votes must lie in [0, {num_classes - 1}], got {int(votes.min())} to {int(votes.max())}")

    def certify(rows: slice, of_rows: Adversary) -> tuple[Tensor, Tensor]:
        return _plurality(votes[rows].long(), num_classes, of_rows)

    return _in_blocks(certify, votes, adversary, num_labels)


def certify_run_off(ranks: Tensor, adversary: Adversary, num_labels: int) -> LabelFlipCertificate:
    """Certify the run-off election; theorem and proof stand at the head of this module.

    Args:
        ranks: shape (m, T, K), integers: the place of each class on each voter's list, 0 for the first, all different.
        adversary: what label changes do to the voters.
        num_labels: n, the number of training labels: the radius where nothing changes the result.

    Raises:
        UserError: there is no voter, or the adversary has prices, which protect a voter's first place alone.

    Example:
        >>> from lightning_poison.certificates.partitions import OneVote
        >>> ranks = torch.tensor([[[0, 1, 2], [0, 1, 2], [1, 0, 2], [2, 1, 0], [0, 2, 1]]])
        >>> certify_run_off(ranks, OneVote(), num_labels=50)
        LabelFlipCertificate(prediction=tensor([0]), radius=tensor([0]))
    """
    _check_voters(ranks, 3)
    if isinstance(adversary, PricedVotes):
        raise UserError(
            "adversary must not have prices in a run-off, got PricedVotes; they protect the first place alone"
        )

    def certify(rows: slice, of_rows: Adversary) -> tuple[Tensor, Tensor]:
        return _run_off(ranks[rows], of_rows)

    return _in_blocks(certify, ranks, adversary, num_labels)


def rank_classes(scores: Tensor) -> Tensor:
    """Places of the classes by falling score, the lower index first among equals; NaN ranks last.

    Args:
        scores: shape (..., K), float.

    Returns:
        shape (..., K), the smallest dtype that holds K - 1, see :func:`integers_up_to`.

    Example:
        >>> rank_classes(torch.tensor([0.1, 0.7, 0.7])).tolist()
        [2, 0, 1]
    """
    scores = torch.where(scores.isnan(), -torch.inf, scores)
    places = scores.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return places.to(integers_up_to(scores.shape[-1] - 1))


def integers_up_to(largest: int) -> torch.dtype:
    """The smallest dtype, of at least 16 bits, that holds the integers from 0 to ``largest``.

    Example:
        >>> integers_up_to(32767), integers_up_to(70_000)
        (torch.int16, torch.int32)
    """
    return next(kind for kind in (torch.int16, torch.int32, torch.int64) if largest <= torch.iinfo(kind).max)


def _check_voters(ballots: Tensor, dims: int) -> None:
    if ballots.ndim != dims or ballots.is_floating_point() or ballots.shape[1] == 0 or ballots.shape[-1] == 0:
        got = f"shape {tuple(ballots.shape)}, dtype {ballots.dtype}"
        raise UserError(f"votes must be integers of at least one voter with {dims} dimensions, got {got}")


def _in_blocks(
    certify: Callable[[slice, Adversary], tuple[Tensor, Tensor]], ballots: Tensor, adversary: Adversary, num_labels: int
) -> LabelFlipCertificate:
    """Prediction and radius from prediction and fewest changes, a block of points at a time."""
    step = rows_per_chunk(ballots[:1].numel() or 1)
    predictions, radii = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
    for start in range(0, len(ballots), step):
        rows = slice(start, start + step)
        prediction, fewest = certify(rows, adversary.rows(rows))
        predictions.append(prediction)
        radii.append((fewest - 1).clamp(min=0, max=num_labels))
    return LabelFlipCertificate(torch.cat(predictions), torch.cat(radii))


def _plurality(votes: Tensor, num_classes: int, adversary: Adversary) -> tuple[Tensor, Tensor]:
    counts = _counts(votes, num_classes)
    prediction = counts.argmax(1)
    fewest = torch.full_like(prediction, UNREACHABLE)
    # Of all classes without votes the lowest has the smallest gap, and all have the same gains.
    without_votes = (counts == 0).long().argmax(1)
    for rival in (without_votes, *(torch.full_like(prediction, label) for label in torch.unique(votes).tolist())):
        needed = _to_precede(votes, counts, rival, prediction).fewest(adversary)
        fewest = torch.where(prediction == rival, fewest, torch.minimum(fewest, needed))
    return prediction, fewest


def _run_off(ranks: Tensor, adversary: Adversary) -> tuple[Tensor, Tensor]:
    num_classes = ranks.shape[2]
    votes = ranks.argmin(2)
    counts = _counts(votes, num_classes)
    finalists = _keys(counts).topk(min(2, num_classes), dim=1).indices
    if num_classes == 1:
        return finalists[:, 0], torch.full((len(ranks),), UNREACHABLE)
    first, second = finalists.sort(dim=1).values.unbind(1)
    for_first = (_rank_of(ranks, first) < _rank_of(ranks, second)).sum(1)
    first_wins = 2 * for_first >= ranks.shape[1]
    prediction, other = torch.where(first_wins, first, second), torch.where(first_wins, second, first)
    fewest = _fewest_to_oust(votes, counts, prediction, adversary)
    for rival in range(num_classes):
        against = torch.full_like(prediction, rival)
        prefer = _rank_of(ranks, prediction) < _rank_of(ranks, against)
        preferred = _Demand(2 * prefer.sum(1) - ranks.shape[1] + (prediction < rival), 2 * prefer.long())
        alone, meets = preferred.fewest(adversary), _to_precede(votes, counts, against, other)
        both = [preferred.weighted(*weights, meets).fewest(adversary) for weights in _WEIGHTS]
        needed = torch.where(other == rival, alone, torch.stack([alone, *both]).amax(0))
        fewest = torch.where(prediction == rival, fewest, torch.minimum(fewest, needed))
    return prediction, fewest


@dataclass(frozen=True)
class _Demand:
    """A gap that must be taken off, shape (m,), and what each voter's change takes off it at most, shape (m, T)."""

    gap: Tensor
    gains: Tensor

    def fewest(self, adversary: Adversary) -> Tensor:
        return adversary.fewest(self.gap, self.gains)

    def weighted(self, weight: int, of_other: int, other: _Demand) -> _Demand:
        """The weighted sum of two gaps that the same changes take off."""
        return _Demand(weight * self.gap + of_other * other.gap, weight * self.gains + of_other * other.gains)


def _fewest_to_oust(votes: Tensor, counts: Tensor, prediction: Tensor, adversary: Adversary) -> Tensor:
    """Fewest changes after which two classes precede the prediction.

    Rivals come by growing gap. A sum of two gaps, of which one is that of a later rival, is at least that of the first
    and the next rival, so most pairs need not be looked at.
    """
    leader, classes = prediction[:, None], torch.arange(counts.shape[1], device=counts.device)
    gaps = counts.gather(1, leader) - counts + (leader < classes)
    order = gaps.scatter(1, leader, UNREACHABLE).argsort(dim=1, stable=True)[:, :-1]
    gaps, own = gaps.gather(1, order), votes == leader
    alone = [_to_precede(votes, counts, rival, prediction).fewest(adversary) for rival in order.unbind(1)]
    fewest = torch.full_like(prediction, UNREACHABLE)
    for second in range(1, len(alone)):
        anyone = _Demand(gaps[:, 0] + gaps[:, second], 1 + 2 * own.long())
        if (anyone.fewest(adversary) >= fewest).all():
            break
        for first in range(second):
            neither = (votes != order[:, first, None]) & (votes != order[:, second, None])
            both = _Demand(gaps[:, first] + gaps[:, second], torch.where(own, 3, neither.long()))
            needed = torch.stack([both.fewest(adversary), alone[first], alone[second]]).amax(0)
            fewest = torch.minimum(fewest, needed)
    return fewest


def _to_precede(votes: Tensor, counts: Tensor, rival: Tensor, leader: Tensor) -> _Demand:
    """What must be taken off before ``rival`` precedes ``leader``; both (m,)."""
    gains = torch.where(votes == leader[:, None], 2, (votes != rival[:, None]).long())
    difference = counts.gather(1, leader[:, None]) - counts.gather(1, rival[:, None])
    return _Demand(difference[:, 0] + (leader < rival), gains)


def _counts(votes: Tensor, num_classes: int) -> Tensor:
    counts = torch.zeros(len(votes), num_classes, dtype=torch.int64, device=votes.device)
    return counts.scatter_add_(1, votes, torch.ones_like(votes))


def _keys(counts: Tensor) -> Tensor:
    """Counts that are all different: the lower index is larger among equals."""
    num_classes = counts.shape[1]
    return counts * num_classes + torch.arange(num_classes - 1, -1, -1, device=counts.device)


def _rank_of(ranks: Tensor, label: Tensor) -> Tensor:
    """The place of each point's class ``label`` (m,) on every voter's list, (m, T)."""
    return ranks.gather(2, label[:, None, None].expand(-1, ranks.shape[1], 1))[:, :, 0]


# --- adversaries ------------------------------------------------------------------------------------------------------


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
