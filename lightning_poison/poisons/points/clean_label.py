"""Training inputs that are moved a little, with their labels kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_poison.attacks import class_scores, frozen_eval
from lightning_poison.attacks.base import checked_radius
from lightning_poison.attacks.model import input_gradients
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import (
    check_choice,
    check_integer_field,
    check_kind,
    check_number_field,
    check_pixels,
)
from lightning_poison.functional.norms import Norm, named_norm
from lightning_poison.functional.pixels import Radius
from lightning_poison.nets.building import device_of
from lightning_poison.poisons.base import Candidates, Selector
from lightning_poison.poisons.points.poison_points import PointPoison, PoisonPoints
from lightning_poison.poisons.relabellings import NextClass, Relabelling
from lightning_poison.poisons.surrogates import Surrogate, surrogate_network
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["CleanLabelPerturbation", "spend", "within"]

_CHUNK = 500
_GRAINS = 4096  # gains are compared up to so many parts of themselves: last bits differ between machines
_ROUNDS = 50  # of shortening what rounding has lengthened


@dataclass(frozen=True)
class CleanLabelPerturbation(PointPoison):
    """Replaces training inputs x by x + delta and keeps their labels (Wang, Mianjy and Arora, 2021).

    The budget has two parts: ||delta_i|| <= B for each point, and sum_i ||delta_i|| <= S for all of them. How the
    perturbations are found is left open there. Here they are adversarial examples for a surrogate that was trained on
    the clean data (Fowl et al., "Adversarial examples make strong poisons", 2021): steepest steps on the cross-entropy,
    down to that of the class which ``toward`` names, or without it up from that of the label. Where S does not suffice
    for all selected points, it is spent on those whose loss changes most per unit of norm, the last of them in part,
    and on none whose loss does not change as intended; points that get nothing are not in the list.

    Args:
        select: which points may be moved.
        eps: B, in the units of the inputs.
        total: S, in the same norm; None: no bound but that of each point.
        toward: whose labels the surrogate should see in the moved points; None: any but their own.
        norm: "l2" or "linf", of both bounds.
        steps: number of steps, each of length 2.5 B / steps.
        clip: whether inputs stay within [0, 1].
        surrogate: the network; None: the one that comes with the data, else one trained now.

    Raises:
        UserError: an argument is out of range; (when points are made) the selection does not fit the data, inputs lie
            outside of [0, 1] while they are to stay within, or the surrogate passes no gradient on.

    Example:
        >>> from lightning_poison.poisons import RandomPoints
        >>> CleanLabelPerturbation(RandomPoints(count=10), eps=0.5, total=2.0).num_classes_after(10)
        10
    """

    select: Selector
    eps: Radius = 1.0
    total: float | None = None
    toward: Relabelling | None = None
    norm: Literal["l2", "linf"] = "l2"
    steps: int = 40
    clip: bool = True
    surrogate: Surrogate | None = None

    def __post_init__(self) -> None:
        check_kind("select", self.select, Selector, "RandomPoints(count=10)")
        check_kind("toward", self.toward, Relabelling, "NextClass()", optional=True)
        check_kind("surrogate", self.surrogate, Surrogate, "TrainedSurrogate()", optional=True)
        if not isinstance(self.clip, bool):
            raise UserError(f"clip must be true or false, got {self.clip!r}")
        check_choice("norm", self.norm, ("l2", "linf"))
        object.__setattr__(self, "eps", checked_radius("eps", self.eps, self.norm if self.clip else "l2"))
        check_integer_field(self, "steps", minimum=1)
        if self.total is not None:
            check_number_field(self, "total", minimum=0)

    def num_classes_after(self, num_classes: int) -> int:
        """As many as before: labels are kept."""
        if self.toward is not None and self.toward.num_classes_after(num_classes) > num_classes:
            raise UserError("toward must name a class that the surrogate knows, got a new class; use NextClass")
        return num_classes

    def check(self, training_set: TrainingSet, seed: int) -> None:
        """Refuse a budget or classes that do not fit the data.

        Raises:
            UserError: they do not.
        """
        super().check(training_set, seed)
        self.select.check(self._candidates(training_set, seed))

    def craft(self, training_set: TrainingSet, seed: int) -> PoisonPoints:
        """Move the points.

        Raises:
            UserError: the selection does not fit the data, or the surrogate cannot be used.
        """
        self.num_classes_after(training_set.num_classes)
        candidates = self._candidates(training_set, seed)
        index = self.select.select(candidates, seed)
        inputs, labels = training_set.inputs[index], training_set.labels[index]
        if self.clip:
            inputs = check_pixels("inputs", inputs, remedy="clip=true keeps them there, set clip=false")
        targets = labels if self.toward is None else candidates.new_labels[index]
        network = surrogate_network(self.surrogate, training_set, seed)
        moved, gain = self._moved(network, inputs, targets, training_set)
        moved = self._afforded(inputs, moved, gain)
        size = _sizes(self._norm, moved, inputs)
        kept = size > 0
        if len(index) and not kept.any() and self.eps > 0 and self.total != 0:
            raise UserError(
                "no point could be moved: the surrogate's loss does not depend on them; use another network"
            )
        return PoisonPoints(
            index=training_set.positions_of(index[kept]),
            inputs=moved[kept],
            old_label=labels[kept],
            new_label=labels[kept],
            distance=size[kept],
            provenance=self.provenance(training_set, seed, self.norm) | candidates.notes,
        ).check(training_set, training_set.num_classes)

    @property
    def _norm(self) -> Norm:
        return named_norm(self.norm)

    def _candidates(self, training_set: TrainingSet, seed: int) -> Candidates:
        relabelling = self.toward or self.select.own_relabelling() or NextClass()
        return Candidates.of(training_set, relabelling, seed)

    def _moved(
        self, network: nn.Module, inputs: Tensor, targets: Tensor, training_set: TrainingSet
    ) -> tuple[Tensor, Tensor]:
        """The inputs with whole perturbations, and by how much each changes its loss the intended way."""
        parts = []
        device = device_of(network)
        with training_set.progress("perturbing points", len(inputs)) as advance, frozen_eval(network):
            for some, goal in zip(torch.split(inputs, _CHUNK), torch.split(targets, _CHUNK), strict=True):
                moved, gain = self._ascended(network, some.to(device), goal.to(device))
                parts.append((moved.cpu(), gain.cpu()))
                advance(len(some))
        if not parts:
            return inputs, torch.zeros(0)
        moved, gain = (torch.cat(column) for column in zip(*parts, strict=True))
        return moved, gain

    def _ascended(self, network: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        sign = 1.0 if self.toward is None else -1.0
        length = 2.5 * self.eps / self.steps
        points, first = inputs, torch.zeros(len(inputs))
        for step in range(self.steps + 1):
            points = points.detach().requires_grad_()
            value = sign * cross_entropy(class_scores(network, points), targets, reduction="none")
            if step == 0:
                first = value.detach()
            if step < self.steps:
                gradients = input_gradients(value.sum(), points)
                points = self._projected(points.detach() + length * self._norm.ascent(gradients), inputs)
        return points.detach(), value.detach() - first

    def _projected(self, points: Tensor, inputs: Tensor) -> Tensor:
        """Back into the ball and, afterwards, [0, 1]: that brings every coordinate nearer to the input's."""
        delta = points - inputs
        if self.norm == "linf":
            delta = delta.clamp(-self.eps, self.eps)
        else:
            size = self._norm.size(delta).clamp_min(1e-30).reshape(-1, *[1] * (inputs.ndim - 1))
            delta = delta * (self.eps / size).clamp_max(1.0)
        moved = inputs + delta
        return moved.clamp(0, 1) if self.clip else moved

    def _afforded(self, inputs: Tensor, moved: Tensor, gain: Tensor) -> Tensor:
        """Perturbations cut down to both budgets, which hold for the stored numbers, too."""
        delta = moved.double() - inputs.double()
        bound = torch.full((len(inputs),), float(self.eps), dtype=torch.float64)
        size = _sizes(self._norm, moved, inputs).clamp_max(self.eps)
        total = math.inf if self.total is None else self.total * (1 - 1e-9)  # rounding in the sum cannot exceed S
        if float(size.sum()) > total:
            shares = torch.zeros(len(inputs), dtype=torch.float64)
            moves = size > 0
            mantissa, exponent = torch.frexp(gain.double())
            rounded = torch.ldexp((mantissa * _GRAINS).round(), exponent)
            shares[moves] = spend(rounded[moves], size[moves], total)
            bound = torch.minimum(bound, shares * size)
            delta = delta * shares.reshape(-1, *[1] * (inputs.ndim - 1))
        return within(inputs, delta, bound, self._norm.size)


def _sizes(norm: Norm, moved: Tensor, inputs: Tensor) -> Tensor:
    return norm.size(moved.double() - inputs.double())


# --- budgets ----------------------------------------------------------------------------------------------------------


def spend(gain: Tensor, size: Tensor, total: float) -> Tensor:
    """Which share of each perturbation to make so that their sizes add up to at most ``total``.

    Solves max sum_i s_i g_i over 0 <= s_i <= 1 with sum_i s_i z_i <= S: the fractional knapsack, whose solution takes
    the items of largest g_i / z_i whole and the first that does not fit in part (Dantzig, 1957). Equal ratios are taken
    in the order of the items; an item that gains nothing is left out.

    Args:
        gain: shape (n,), float: g, what each whole perturbation is worth.
        size: shape (n,), float, positive: z.
        total: S.

    Returns:
        shape (n,), float64: s.

    Example:
        >>> spend(torch.tensor([1.0, 3.0, -1.0]), torch.tensor([1.0, 1.0, 1.0]), total=1.5)
        tensor([0.5000, 1.0000, 0.0000], dtype=torch.float64)
    """
    gain, size = gain.double(), size.double()
    order = (gain / size).argsort(descending=True, stable=True)
    order = order[gain[order] > 0]
    before = size[order].cumsum(0) - size[order]
    shares = torch.zeros_like(gain)
    shares[order] = ((total - before) / size[order]).clamp(0, 1)
    return shares


def within(inputs: Tensor, perturbation: Tensor, bound: Tensor, size: Callable[[Tensor], Tensor]) -> Tensor:
    """``inputs + perturbation`` such that the sum as it is stored differs from the inputs by at most ``bound``.

    Storing the sum rounds it, which may lengthen a perturbation; a perturbation that is too long is shortened.

    Args:
        inputs: shape (n, ...), float32.
        perturbation: shape (n, ...).
        bound: shape (n,): the largest size of each.
        size: (n, ...) float64 to (n,): a norm.

    Returns:
        shape (n, ...), float32.

    Example:
        >>> moved = within(torch.ones(1, 2), torch.tensor([[3.0, 4.0]]), torch.tensor([1.0]), lambda d: d.norm(dim=1))
        >>> bool((moved.double() - 1).norm() <= 1), moved
        (True, tensor([[1.6000, 1.8000]]))
    """
    shape = (-1,) + (1,) * (inputs.ndim - 1)
    exact, bound = perturbation.double(), bound.double()
    for attempt in range(_ROUNDS):
        moved = (inputs.double() + exact).float()
        actual = size(moved.double() - inputs.double())
        too_long = actual > bound
        if not too_long.any():
            return moved
        shrunk = bound / actual.clamp_min(1e-300) * (1 - 1e-7 * 2**attempt)
        exact = exact * torch.where(too_long, shrunk.clamp_min(0), 1.0).reshape(shape)
    return torch.where(too_long.reshape(shape), inputs, moved)
