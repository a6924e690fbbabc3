"""Flips that solve the bilevel problem on surrogates that memorise them.

Which points a surrogate is fitted to, which can be flipped and which judge the flips (their roles), and the choice of
flips, each as a network that memorises it would feel it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import (
    as_list,
    check_choice,
    check_integer_field,
    check_number_field,
    kind_shown,
)
from lightning_poison.functional.coverage import cover
from lightning_poison.functional.kernel_fit import ForcedFit
from lightning_poison.functional.pixels import Radius
from lightning_poison.functional.random_streams import generator, mix_seed
from lightning_poison.nets import SmallNet, default_nets
from lightning_poison.nets.building import check_net_maker
from lightning_poison.poisons.base import Candidates
from lightning_poison.poisons.budget import BudgetedSelector, Share
from lightning_poison.poisons.meta.outer_attack import OuterAttack, input_box
from lightning_poison.poisons.meta.tangent_model import TangentModel, fresh_surrogate

__all__ = ["Flippable", "MetaFlips", "OuterPoints", "Roles", "closeness", "forced_greedy", "single_effects"]

_ATTACK_STEPS = 10
_OUTER_SHARE = 5  # at most one of so many points is an outer point
_TIE = 1e-6  # of the best gain: smaller differences are none
_SMALLEST_MARGIN = 0.1  # in units of the distance between the labels 0 and 1


@dataclass(frozen=True)
class MetaFlips(BudgetedSelector):
    r"""Lowers the adversarial accuracy of networks trained on the flipped labels: the bilevel problem, solved greedily.

    The inner problem, training, is solved in closed form: a surrogate is a network linearised at fresh weights, whose
    fit is kernel ridge regression (:class:`TangentModel`). The outer problem is judged on points held out of that fit
    and attacked (thesis chapter 5, eq. 5.2). Each flip counts as a network that **memorises** it feels it
    (:class:`ForcedFit`). No victim takes part: its architecture and initial weights are unknown.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        objective: "coverage": flips act each for itself, and an outer point counts the flip that takes most of its
            margin; "joint": each flip adds to those before, and the mean margin counts, cut off at -1 and 1.
        closeness: of "coverage": how much it counts, beside the share of the margin that the surrogates foresee, that a
            flip is near in Euclidean distance (see :func:`closeness`); 0: surrogates only.
        eps: l_inf radius in which outer points are attacked.
        attack_every: of "joint": attack the outer points anew after so many choices; None: only before the first.
        outer: how many outer points, at most a fifth of the points.
        noise: strength of the ridge, in units of the mean of the kernel's diagonal.
        nets: the surrogates' architectures, each made when called with ``num_classes=2``; None: with pooling, with
            strides and without convolutions, see :func:`default_nets`.
        copies: how many surrogates of each architecture.
        max_points: how many points are looked at; of larger data a random part. Memory grows with its square (about
            2.5 GB for 10,000, and with "joint" 0.4 GB more for each further surrogate), time with its cube.

    Raises:
        UserError: more than one budget is given, or an argument is out of its range.

    Example:
        >>> from lightning_poison.poisons import LabelFlips, TrainingSet
        >>> labels = torch.arange(30) % 2
        >>> inputs = torch.rand(30, 4) + labels[:, None]
        >>> training_set = TrainingSet(labels, 2, dataset=list(zip(inputs, labels.tolist())))
        >>> LabelFlips(MetaFlips(per_class=2)).craft(training_set, seed=0).old_label.bincount()
        tensor([2, 2])
    """

    objective: str = "coverage"
    closeness: float = 3.0
    eps: Radius = 0.05
    attack_every: int | None = None
    outer: int = 500
    noise: float = 5.0
    nets: list[Callable[[int], SmallNet] | Callable[[int], nn.Module]] | None = None
    copies: int = 1
    max_points: int = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("objective", self.objective, ("coverage", "joint"))
        check_number_field(self, "eps", minimum=0)
        for name in ("outer", "copies", "max_points"):
            check_integer_field(self, name, minimum=1)
        check_number_field(self, "closeness", minimum=0)
        check_number_field(self, "noise", minimum=1e-6)
        if self.attack_every is not None:
            check_integer_field(self, "attack_every", minimum=1)
        if self.nets is not None:
            nets = as_list(self.nets)
            if not nets:
                got = kind_shown(self.nets)
                raise UserError(f"nets must be a list of architectures such as [MLP], got {got}; null: the defaults")
            object.__setattr__(self, "nets", nets)
            for net in nets:
                check_net_maker(net, "each of nets")

    def choose(self, candidates: Candidates, shares: list[Share], seed: int) -> list[Tensor]:
        """Solve the problem for all shares together."""
        if all(share.budget in (0, len(share.members)) for share in shares):
            return [share.members[: share.budget] for share in shares]
        roles = Roles.draw(candidates, shares, self.max_points, self.outer, seed)
        problem = _Problem(self, candidates, roles, seed)
        budgets = [share.budget for share in shares if share.budget]
        positions = roles.flippable[problem.solve(budgets)]
        chosen = roles.index[positions]
        return [chosen[torch.isin(chosen, share.members)] for share in shares]


class _Problem:
    """The bilevel problem of one selector, seed and training set."""

    def __init__(self, rule: MetaFlips, candidates: Candidates, roles: Roles, seed: int) -> None:
        self.rule, self.roles, self.seed = rule, roles, seed
        data = candidates.training_set
        self.progress = data.progress
        self.points = data.inputs[roles.index]
        self.pairs = torch.stack([candidates.labels[roles.index], candidates.new_labels[roles.index]], dim=1)
        self.num_classes = max(data.num_classes, int(self.pairs.max()) + 1)
        self.attack = OuterAttack(float(rule.eps), _ATTACK_STEPS, *input_box(self.points))
        self.outer = OuterPoints(self.pairs[roles.outer])
        nets = rule.nets or default_nets(self.points.shape[1:])
        self.surrogates = [(net, kind, copy) for copy in range(rule.copies) for kind, net in enumerate(nets)]

    def solve(self, budgets: list[int]) -> Tensor:
        """Positions in ``roles.flippable``."""
        points = self.roles.flippable
        values = functional.one_hot(self.pairs[points, 1], self.num_classes).double()
        flippable = Flippable(points, values, self.roles.share, budgets)
        return self._covering(flippable) if self.rule.objective == "coverage" else self._joint(flippable)

    def _covering(self, flippable: Flippable) -> Tensor:
        """The flips whose single effects cover the outer points; one surrogate is in memory at a time."""
        flips, outer, count = flippable.points, self.roles.outer, len(self.surrogates)
        effects = closeness(self.points[outer], self.points[flips], self.pairs[outer], self.pairs[flips])
        effects *= self.rule.closeness * count
        with self.progress("fitting surrogates", count) as advance:
            for number in range(count):
                effects += single_effects(self._surrogate(number)[1], flippable, self.outer)
                advance(1)
        with self.progress("choosing flips", sum(flippable.budgets)) as advance:
            return cover(effects, flippable.share, flippable.budgets, advance=advance)

    def _joint(self, flippable: Flippable) -> Tensor:
        """The flips of the greedy choice, each felt beside those before."""
        with self.progress("fitting surrogates", len(self.surrogates)) as advance:
            surrogates = []
            for number in range(len(self.surrogates)):
                surrogates.append(self._surrogate(number))
                advance(1)
        total, every = sum(flippable.budgets), self.rule.attack_every
        with self.progress("choosing flips", total) as advance:

            def after_pick(picks: int) -> None:
                advance(1)
                if every is not None and picks % every == 0 and picks < total:
                    for model, fit in surrogates:
                        self._watch(model, fit)

            return torch.tensor(
                forced_greedy([fit for _, fit in surrogates], flippable, self.outer, _worth, after_pick)
            )

    def _surrogate(self, number: int) -> tuple[TangentModel, ForcedFit]:
        """One surrogate, fitted to the clean labels, that watches the outer points attacked on it."""
        net, kind, copy = self.surrogates[number]
        network = fresh_surrogate(net, mix_seed(self.seed, "MetaFlips", "surrogate", kind, copy), self.points[:2])
        targets = functional.one_hot(self.pairs[self.roles.training, 0], self.num_classes)
        model = TangentModel(network, self.points, self.roles.training, targets, self.rule.noise)
        fit = ForcedFit(model.fit)
        self._watch(model, fit)
        return model, fit

    def _watch(self, model: TangentModel, fit: ForcedFit) -> None:
        """Attack the outer points as the surrogate is by now."""
        inputs = self.points[self.roles.outer]
        fit.watch(model.kernel(model.attacked(inputs, self.outer.pairs, fit.coefficients(), self.attack)))


def _worth(margins: Tensor) -> Tensor:
    """A smooth 0-1 count of points that are still classified right: the margin, cut off at -1 and 1."""
    return margins.clamp(-1, 1)


# --- roles ------------------------------------------------------------------------------------------------------------


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


# --- forced greedy choice ---------------------------------------------------------------------------------------------


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


def _gains(
    fit: ForcedFit, flippable: Flippable, allowed: Tensor, outer: OuterPoints, worth: Callable[[Tensor], Tensor]
) -> Tensor:
    """How much less the outer margins are worth when a candidate is forced, (c,), float64."""
    margins = outer.margins(fit.outer_scores).float()
    points = flippable.points[allowed]
    missing = (flippable.values[allowed] - fit.scores[points]).float()
    after = fit.ratios(points).mul_(outer.changes(missing)).add_(margins[:, None])
    return worth(margins).double().mean() - worth(after).mean(dim=0).double()


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
