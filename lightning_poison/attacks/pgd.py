"""Projected gradient descent, per-point worst case over losses and restarts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.attacks.ascent import projected_ascent
from lightning_poison.attacks.base import Attack, AttackResult, Criterion, NormName, check_sizes
from lightning_poison.attacks.samples import Samples
from lightning_poison.attacks.stochastic import DRAWS, fooling_draws
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_integer_field
from lightning_poison.functional.losses import named_loss
from lightning_poison.functional.norms import named_norm
from lightning_poison.functional.pixels import Radius
from lightning_poison.functional.random_streams import uniform_noise

__all__ = ["PGD"]


@dataclass(frozen=True)
class PGD(Attack):
    """Iterated steepest steps, each followed by a projection (Madry et al., 2018).

    A sample counts as fooled if one of the runs (every loss from the clean input, then every loss from each random
    restart) fools it; a run attacks only what the runs before it left standing. Samples that are wrong without any
    attack count as fooled. Of a stochastic victim the runs' ends are compared in nine passes each.

    Attributes:
        eps: radius in pixel units, such as 0.1 or ``8/255``; an l_inf radius lies in [0, 1].
        steps: number of steps of a run.
        step_size: length of a step in pixel units; None: ``2.5 * eps / steps``.
        norm: "linf", "l2" or "l1".
        losses: what the runs ascend. Cross-entropy overstates the robustness of some networks and the margin that of
            others.
        restarts: runs from random points of the ball, besides those from the clean input. An l2 or l1 start
            lies on the sphere, unless the box cuts it off.
        success: "any iterate" stops a sample at the first iterate that fools; "last iterate" looks at start and end
            only and is never stronger.
        seed: of the restarts, which depend on each sample's position, not on batches or ranks.

    Raises:
        UserError: an argument is out of its range.

    Example:
        >>> weights = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> result = PGD(eps=0.2, steps=4)(lambda x: x @ weights, torch.tensor([[0.6, 0.4]]), torch.tensor([0]))
        >>> result.fooled
        tensor([True])
    """

    eps: Radius = 0.1
    steps: int = 40
    step_size: Radius | None = None
    norm: NormName = "linf"
    losses: tuple[str, ...] = ("cross_entropy", "margin")
    restarts: int = 0
    success: Criterion = "any iterate"
    seed: int = 0

    def __post_init__(self) -> None:
        check_sizes(self, self.norm)
        check_integer_field(self, "steps", minimum=1, remedy="use steps=40 for a thorough attack")
        check_integer_field(self, "restarts", minimum=0)
        check_choice("success", self.success, ("any iterate", "last iterate"))
        if isinstance(self.losses, str) or not self.losses:
            raise UserError(f"losses must be a list of names, got {self.losses!r}; write [cross_entropy, margin]")
        object.__setattr__(self, "losses", tuple(self.losses))
        for loss in self.losses:
            named_loss(loss)

    def _run(self, model: Callable[[Tensor], Tensor], samples: Samples) -> AttackResult:
        norm = named_norm(self.norm)
        step_size = 2.5 * self.eps / self.steps if self.step_size is None else self.step_size
        examples, worth = samples.inputs.clone(), torch.zeros_like(samples.labels)
        enough = 1 + DRAWS // 2 if samples.stochastic else 1
        flat = torch.zeros_like(samples.labels, dtype=torch.float64)
        for run in range((1 + self.restarts) * len(self.losses)):
            restart, loss = divmod(run, len(self.losses))
            rows = (worth < enough).nonzero().squeeze(1)
            if not len(rows):
                break
            standing = samples[rows]
            found = projected_ascent(
                model,
                standing,
                self._random_start(standing, run) if restart else standing.inputs,
                eps=self.eps,
                steps=self.steps,
                step_size=step_size,
                norm=norm,
                loss=named_loss(self.losses[loss]),
                criterion=self.success,
            )
            reached = fooling_draws(model, found.examples, standing) if samples.stochastic else found.fooled.long()
            kept = reached >= worth[rows]
            examples[rows[kept]], worth[rows[kept]] = found.examples[kept], reached[kept]
            if not restart:  # who stands still under one loss may move under another
                flat[rows] = found.details["zero_gradient"] * (flat[rows] if run else 1)
        return AttackResult(examples, worth >= enough, self.success, {"zero_gradient": flat})

    def _random_start(self, samples: Samples, run: int) -> Tensor:
        inputs, norm = samples.inputs, named_norm(self.norm)
        noise = uniform_noise(inputs.shape, samples.ids, self.seed, "restart", run).to(inputs)
        return norm.onto_ball_and_box(inputs + self.eps * norm.random_direction(noise), inputs, self.eps)
