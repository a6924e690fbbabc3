"""The box-constrained L-BFGS attack: small perturbations found by a quasi-Newton method."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from scipy.optimize import minimize
from torch import Tensor

from lightning_poison.attacks.base import Attack, AttackResult, checked_radius
from lightning_poison.attacks.model import class_scores, input_gradients
from lightning_poison.attacks.samples import Samples
from lightning_poison.attacks.stochastic import DRAWS, fooling_draws
from lightning_poison.functional.checks import check_integer_field, check_number_field
from lightning_poison.functional.losses import cross_entropy
from lightning_poison.functional.pixels import Radius

__all__ = ["LBFGS"]


@dataclass(frozen=True)
class LBFGS(Attack):
    """The smallest perturbation found by L-BFGS-B (Szegedy et al., "Intriguing properties of neural networks", 2014).

    For each sample x it minimises ``c ||r||_2^2 + cross_entropy(x + r, target)`` subject to x + r in [0, 1] with
    SciPy's L-BFGS-B, in float64 (the network stays in its own dtype). The larger c, the smaller the perturbation, until
    it no longer fools: c is multiplied or divided by ten until one value fools and one doesn't, and from then on it is
    the geometric mean of the largest that fools and the smallest that doesn't. Of all points that were looked at on the
    way the nearest that fools is kept.

    Untargeted, the target is the class with the highest score on the clean input besides the label, and any prediction
    other than the label counts. A sample that is fooled without an attack has a perturbation of size 0. A stochastic
    victim is taken to be fooled at a point where most of nine passes say so.

    Each sample takes hundreds of passes through the network on its own, so bound their number.

    Attributes:
        eps: l2 radius in pixel units: perturbations that are larger don't count, and the clean input is returned; None:
            no bound, and whoever has been fooled at all counts.
        search_steps: how many values of c are tried.
        max_iterations: of L-BFGS-B for one c.
        initial_c: the first c.

    Raises:
        UserError: an argument is out of its range.

    Example:
        >>> weights = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> result = LBFGS()(lambda x: x @ weights, torch.tensor([[0.6, 0.4]]), torch.tensor([0]))
        >>> [round(value, 2) for value in result.details["l2"].tolist()]  # 0.1 * sqrt(2)
        [0.14]
    """

    eps: Radius | None = None  # type: ignore[assignment]  # None becomes the base's infinite radius
    search_steps: int = 8
    max_iterations: int = 20
    initial_c: float = 1.0
    norm: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        radius = math.inf if self.eps is None or self.eps == math.inf else checked_radius("eps", self.eps, "l2")
        object.__setattr__(self, "eps", radius)
        object.__setattr__(self, "norm", None if radius == math.inf else "l2")
        check_integer_field(self, "search_steps", minimum=1, remedy="search_steps=8 is usual")
        check_integer_field(self, "max_iterations", minimum=1, remedy="max_iterations=20 is usual")
        check_number_field(self, "initial_c", minimum=1e-12, maximum=1e12, remedy="initial_c=1 is usual")

    def _run(self, model: Callable[[Tensor], Tensor], samples: Samples) -> AttackResult:
        radius = math.inf if self.eps is None else self.eps
        examples, sizes = samples.inputs.clone(), torch.full((len(samples),), math.nan, dtype=torch.float64)
        for row in range(len(samples)):
            here = slice(row, row + 1)
            search = _Search(model, samples[here])
            search.run(self.initial_c, self.search_steps, self.max_iterations)
            if search.size <= radius and search.nearest is not None:
                examples[here], sizes[row] = search.nearest, search.size
        sizes = sizes.to(examples.device)
        return AttackResult(examples, ~sizes.isnan(), "any iterate", {"l2": sizes})


class _Search:
    """The nearest point that fools, for one sample.

    Attributes:
        nearest: shape (1, ...), the nearest point seen that fools; None: none.
        size: its l2 distance from the input.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], sample: Samples) -> None:
        self.model, self.sample, self.centre = model, sample, sample.inputs
        self.nearest: Tensor | None = None
        self.size = math.inf
        with torch.no_grad():
            scores = class_scores(model, self.centre)
        runner_up = scores.scatter(1, sample.labels[:, None], -torch.inf).argmax(dim=1)
        self.aim = runner_up if sample.targets is None else sample.targets
        self._note(self.centre, scores)

    def run(self, c: float, search_steps: int, max_iterations: int) -> None:
        """Try ``search_steps`` values of the penalty's weight, from ``c`` on."""
        fooling, failing = 0.0, math.inf
        for _ in range(search_steps):
            if self.size == 0:
                return
            if self._minimise(c, max_iterations):
                fooling = c
            else:
                failing = c
            c = _between(fooling, failing)

    def _minimise(self, c: float, max_iterations: int) -> bool:
        """Whether the minimum fools."""
        start = self.centre.double().cpu()

        def objective(values: object) -> tuple[float, object]:
            exact = torch.as_tensor(values, dtype=torch.float64).view_as(start)
            point = self._point(exact).requires_grad_()
            scores = class_scores(self.model, point)
            loss = cross_entropy(scores, self.aim).sum()
            gradient = input_gradients(loss, point)
            self._note(point.detach(), scores.detach())
            slope = gradient.double().cpu() + 2 * c * (exact - start)
            return float(loss.detach()) + c * float((exact - start).square().sum()), slope.flatten().numpy()

        found = minimize(
            objective,
            start.flatten().numpy(),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, 1)] * start.numel(),
            options={"maxiter": max_iterations},
        )
        point = self._point(torch.as_tensor(found.x).view_as(start))
        with torch.no_grad():
            return self._note(point, class_scores(self.model, point))

    def _point(self, exact: Tensor) -> Tensor:
        return exact.to(self.centre).clamp(0, 1)

    def _note(self, point: Tensor, scores: Tensor) -> bool:
        """Keep a point that fools if it is the nearest so far; whether it fools."""
        fools = bool(self.sample.fooled(scores))
        if fools and self.sample.stochastic:
            fools = bool(fooling_draws(self.model, point, self.sample) > DRAWS // 2)
        size = float((point.double() - self.centre.double()).norm())
        if fools and size < self.size:
            self.nearest, self.size = point.clone(), size
        return fools


def _between(fooling: float, failing: float) -> float:
    if fooling == 0:
        return failing / 10
    return fooling * 10 if failing == math.inf else math.sqrt(fooling * failing)
