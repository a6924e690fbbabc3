"""The iterative least-likely class method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lightning_poison.attacks.base import AttackResult
from lightning_poison.attacks.bim import BIM
from lightning_poison.attacks.samples import Samples
from lightning_poison.attacks.targets import choose_targets

__all__ = ["ILCM"]


@dataclass(frozen=True)
class ILCM(BIM):
    """BIM towards the class that the network finds least likely for the clean input.

    The way leads to that class, but a sample counts as fooled, and stops, as soon as its prediction isn't the label:
    the paper reports how accurate the network remains, not how often it says the chosen class (Kurakin et al., 2017,
    sect. 2.3). Followed to its end (``success: last iterate``) the way makes gross mistakes, such as a dog for an
    aeroplane.

    Called with targets it steers to those instead, and a sample counts as fooled when it gets there, as with every
    other attack.

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
        >>> scores = lambda x: torch.cat([x, 1 - x, -x], dim=1)
        >>> attack = ILCM(eps=0.2, steps=4)
        >>> attack(scores, torch.tensor([[0.62]]), torch.tensor([0])).examples  # class 1, on the way to class 2
        tensor([[0.4700]])
    """

    def _run(self, model: Callable[[Tensor], Tensor], samples: Samples) -> AttackResult:
        if samples.targets is not None:
            return self._ascend(model, samples)
        return self._ascend(model, samples, choose_targets("least_likely", model, samples.inputs, samples.labels))
