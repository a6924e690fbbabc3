"""The basic iterative method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lightning_poison.attacks.ascent import projected_ascent
from lightning_poison.attacks.base import Attack, AttackResult, Criterion, NormName, check_sizes
from lightning_poison.attacks.samples import Samples
from lightning_poison.functional.checks import check_choice, check_integer_field
from lightning_poison.functional.losses import cross_entropy
from lightning_poison.functional.norms import named_norm
from lightning_poison.functional.pixels import Radius

__all__ = ["BIM"]


@dataclass(frozen=True)
class BIM(Attack):
    """FGSM in small steps from the clean input, on the cross-entropy (Kurakin et al., 2017, sect. 2.2).

    PGD with one loss, one run and steps that reach the ball's border in a straight line and no further.

    Attributes:
        eps: radius in pixel units, such as 0.1 or ``8/255``; an l_inf radius lies in [0, 1].
        steps: number of steps.
        step_size: length of a step in pixel units; None: ``eps / steps``.
        norm: "linf", "l2" or "l1"; the paper's is l_inf.
        success: "any iterate" stops a sample at the first iterate that fools; "last iterate" looks at start and end
            only and is never stronger.

    Raises:
        UserError: an argument is out of its range.

    Example:
        >>> import torch
        >>> weights = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> BIM(eps=0.2, steps=4)(lambda x: x @ weights, torch.tensor([[0.62, 0.4]]), torch.tensor([0])).examples
        tensor([[0.4700, 0.5500]])
    """

    eps: Radius = 0.1
    steps: int = 10
    step_size: Radius | None = None
    norm: NormName = "linf"
    success: Criterion = "any iterate"

    def __post_init__(self) -> None:
        check_sizes(self, self.norm)
        check_integer_field(self, "steps", minimum=1, remedy="steps=10 is usual")
        check_choice("success", self.success, ("any iterate", "last iterate"))

    def _run(self, model: Callable[[Tensor], Tensor], samples: Samples) -> AttackResult:
        return self._ascend(model, samples)

    def _ascend(self, model: Callable[[Tensor], Tensor], samples: Samples, aims: Tensor | None = None) -> AttackResult:
        return projected_ascent(
            model,
            samples,
            samples.inputs,
            eps=self.eps,
            steps=self.steps,
            step_size=self.eps / self.steps if self.step_size is None else self.step_size,
            norm=named_norm(self.norm),
            loss=cross_entropy,
            criterion=self.success,
            aims=aims,
        )
