"""Choosing flips one by one, each as a network that memorises it would feel it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.functional.forced_fit import ForcedFit

__all__ = ["Flippable", "OuterPoints", "closeness", "forced_greedy", "single_effects"]

_TIE = 1e-6  # of the best gain
_SMALLEST_MARGIN = 0.1  # in units of the distance between the labels 0 and 1


@dataclass(frozen=True, eq=False)
class Flippable:
    """Points that can be flipped.

    Args:
        points: shape (c,), int64: numbers in the fits.
        values: shape (c, K), float64: the scores that a network which memorises the flip gives.
        share: shape (c,), int64: the share of the budget that a point belongs to.
        budgets: how many of each share are flipped.
    """

    points: Tensor
    values: Tensor
    share: Tensor
    budgets: list[int]


@dataclass(frozen=True, eq=False)
class OuterPoints:
    """Attacked points whose margins the flips are to lower.

    Args:
        pairs: shape (m, 2), int64: of each its class and the rival.
    """

    pairs: Tensor

    def margins(self, scores: Tensor) -> Tensor:
        """Score of the class minus the rival's: (m,) from (m, K)."""
        own, rival = self.pairs.unbind(dim=1)
        rows = torch.arange(len(scores))
        return scores[rows, own] - scores[rows, rival]

    def changes(self, missing: Tensor) -> Tensor:
        """The same difference of c vectors of K numbers, for each outer point: (m, c) from (c, K)."""
        own, rival = self.pairs.unbind(dim=1)
        return (missing[:, own] - missing[:, rival]).T


def forced_greedy(
    fits: list[ForcedFit],
    flippable: Flippable,
    outer: OuterPoints,
    worth: Callable[[Tensor], Tensor],
    after_pick: Callable[[int], object] = lambda _: None,
) -> list[int]:
    """Flip, time and again, the point whose forced flip lowers the outer margins most.

    Args:
        fits: of the surrogates, which watch the outer points; they end up forced through the flips.
        flippable: what to choose from.
        outer: on what the choice is judged.
        worth: maps margins to what they are worth to the defender, entry by entry; the mean over surrogates and outer
            points is minimised.
        after_pick: called with the number of picks so far.

    Returns:
        positions in ``flippable``, in the order of choice; of equally good ones the first.
    """
    left = torch.tensor(flippable.budgets, dtype=torch.int64)
    open_ = torch.ones(len(flippable.points), dtype=torch.bool)
    chosen: list[int] = []
    while int(left.sum()):
        allowed = (open_ & (left[flippable.share] > 0)).nonzero()[:, 0]
        gains = sum((_gains(fit, flippable, allowed, outer, worth) for fit in fits), torch.zeros(()))
        best = gains.max()
        pick = int(allowed[(gains >= best - _TIE * best.abs()).nonzero()[0, 0]])
        for fit in fits:
            fit.force(int(flippable.points[pick]), flippable.values[pick])
        chosen.append(pick)
        open_[pick] = False
        left[flippable.share[pick]] -= 1
        after_pick(len(chosen))
    return chosen


def single_effects(fit: ForcedFit, flippable: Flippable, outer: OuterPoints) -> Tensor:
    """Which part of each outer point's margin each flip takes away when it is forced alone.

    Args:
        fit: of a surrogate, which watches the outer points; nothing has been forced.
        flippable: the flips.
        outer: the outer points.

    Returns:
        shape (m, c), float32, in [0, 1]: 0 where a flip helps, 1 where it turns the point.
    """
    margins = outer.margins(fit.outer_scores).clamp_min(_SMALLEST_MARGIN).float()
    missing = (flippable.values - fit.scores[flippable.points]).float()
    drop = fit.ratios(flippable.points).mul_(outer.changes(missing)).neg_()
    return drop.div_(margins[:, None]).clamp_(0, 1)


def closeness(inputs: Tensor, others: Tensor, pairs: Tensor, other_pairs: Tensor) -> Tensor:
    """How near points are to flips of their own kind: 1 - d^2 / (mean d^2 of the kind), at least 0.

    Args:
        inputs: shape (m, ...), of which d is the Euclidean distance to the others.
        others: shape (c, ...): the flips.
        pairs: shape (m, 2), int64: class and rival of each point.
        other_pairs: shape (c, 2), int64: old and new label of each flip; another kind counts 0.

    Returns:
        shape (m, c), float32, in [0, 1].

    Example:
        >>> kinds = torch.tensor([[0, 1], [1, 0], [0, 1]])
        >>> closeness(torch.zeros(1, 1), torch.tensor([[1.0], [0.0], [2.0]]), kinds[:1], kinds)
        tensor([[0.6000, 0.0000, 0.0000]])
    """
    near = torch.zeros(len(inputs), len(others))
    for kind in torch.unique(pairs, dim=0):
        rows, columns = ((each == kind).all(dim=1).nonzero()[:, 0] for each in (pairs, other_pairs))
        if len(columns):
            points, flips = inputs[rows].flatten(1).double(), others[columns].flatten(1).double()
            centre = flips.mean(dim=0)  # so that rounding is small beside the spread
            squares = torch.cdist(points - centre, flips - centre).square_()
            near[rows[:, None], columns] = (1 - squares / squares.mean().clamp_min(1e-30)).clamp_(0, 1).float()
    return near


def _gains(
    fit: ForcedFit, flippable: Flippable, allowed: Tensor, outer: OuterPoints, worth: Callable[[Tensor], Tensor]
) -> Tensor:
    """How much less the outer margins are worth when a candidate is forced, (c,), float64."""
    margins = outer.margins(fit.outer_scores).float()
    points = flippable.points[allowed]
    missing = (flippable.values[allowed] - fit.scores[points]).float()
    after = fit.ratios(points).mul_(outer.changes(missing)).add_(margins[:, None])
    return worth(margins).double().mean() - worth(after).mean(dim=0).double()
