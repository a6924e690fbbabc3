"""Flips that solve the bilevel problem on surrogates that memorise them."""

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
from lightning_poison.functional.forced_fit import ForcedFit
from lightning_poison.functional.pixels import Radius
from lightning_poison.functional.random_streams import mix_seed
from lightning_poison.nets import SmallNet, default_nets
from lightning_poison.nets.building import check_net_maker
from lightning_poison.poisons.budget import BudgetedSelector, Share
from lightning_poison.poisons.candidates import Candidates
from lightning_poison.poisons.meta.forced_greedy import Flippable, OuterPoints, closeness, forced_greedy, single_effects
from lightning_poison.poisons.meta.outer_attack import OuterAttack, input_box
from lightning_poison.poisons.meta.roles import Roles
from lightning_poison.poisons.meta.tangent_model import TangentModel, fresh_surrogate

__all__ = ["MetaFlips"]

_STEPS = 10


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
        self.attack = OuterAttack(float(rule.eps), _STEPS, *input_box(self.points))
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

            return torch.tensor(forced_greedy([fit for _, fit in surrogates], flippable, self.outer, worth, after_pick))

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


def worth(margins: Tensor) -> Tensor:
    """A smooth 0-1 count of points that are still classified right: the margin, cut off at -1 and 1."""
    return margins.clamp(-1, 1)
