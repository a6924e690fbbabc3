"""The fast gradient sign method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lightning_poison.attacks.ascent import projected_ascent
from lightning_poison.attacks.base import Attack, AttackResult, NormName, check_sizes
from lightning_poison.attacks.samples import Samples
from lightning_poison.functional.losses import cross_entropy
from lightning_poison.functional.norms import named_norm
from lightning_poison.functional.pixels import Radius

__all__ = ["FGSM"]


@dataclass(frozen=True)
class FGSM(Attack):
    """One steepest step of length ``eps`` on the cross-entropy (Goodfellow et al., 2015), then back into [0, 1].

    Attributes:
        eps: radius in pixel units, such as 0.1 or ``8/255``; an l_inf radius lies in [0, 1].
        norm: "linf" (the sign of the gradient), "l2" (the normalised gradient) or "l1" (the largest coordinates).

    Raises:
        UserError: ``eps`` or ``norm`` is out of its range.

    Example:
        >>> import torch
        >>> weights = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> FGSM(eps=0.2)(lambda x: x @ weights, torch.tensor([[0.6, 0.4]]), torch.tensor([0])).examples
        tensor([[0.4000, 0.6000]])
    """

    eps: Radius = 0.1
    norm: NormName = "linf"

    def __post_init__(self) -> None:
        check_sizes(self, self.norm)

    def _run(self, model: Callable[[Tensor], Tensor], samples: Samples) -> AttackResult:
        return projected_ascent(
            model,
            samples,
            samples.inputs,
            eps=self.eps,
            steps=1,
            step_size=self.eps,
            norm=named_norm(self.norm),
            loss=cross_entropy,
        )
