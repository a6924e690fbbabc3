"""Attacks of the torchattacks library, behind the same interface."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_poison.attacks.base import Attack, AttackResult
from lightning_poison.attacks.engine import is_fooled
from lightning_poison.attacks.model import class_scores
from lightning_poison.errors import UserError
from lightning_poison.functional.random_state import kept_random_state
from lightning_poison.functional.random_streams import mix_seed

__all__ = ["TorchAttack", "from_torchattacks"]


@dataclass(frozen=True)
class TorchAttack(Attack):
    """A torchattacks attack, built anew for each batch; made by :func:`from_torchattacks`.

    A sample counts as fooled if the network errs on it without an attack or on the example that the library returns.
    Random attacks draw from streams of their own (seeded by the batch's first sample), so the global ones stay as
    they are.

    Attributes:
        factory: makes the attack from a module.
        title: what tables call it.
        eps: its radius, infinite where it has none.
        norm: "linf", "l2" or None where it has no radius.
        steps: its number of steps, None where it has none.
        seed: of its random numbers.
    """

    factory: Callable[[nn.Module], Any] = field(repr=False)
    title: str
    eps: float = math.inf
    norm: str | None = None
    steps: int | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        """What tables call the attack."""
        return self.title

    def _run(
        self,
        model: Callable[[Tensor], Tensor],
        inputs: Tensor,
        labels: Tensor,
        targets: Tensor | None,
        sample_ids: Tensor,
    ) -> AttackResult:
        examples = inputs.clone()
        with torch.no_grad():
            fooled = is_fooled(class_scores(model, inputs), labels, targets)
            rows = (~fooled).nonzero().squeeze(1)
        if len(rows):
            aims = (labels if targets is None else targets)[rows]
            with kept_random_state(mix_seed(self.seed, int(sample_ids[0])), inputs.device):
                attack = _build(self.factory, model)
                if targets is not None:
                    _aim(attack, self.title)
                found = attack(inputs[rows], aims)
            examples[rows] = found.detach().to(examples)
            with torch.no_grad():
                left = None if targets is None else targets[rows]
                fooled[rows] = is_fooled(class_scores(model, examples[rows]), labels[rows], left)
        return AttackResult(examples, fooled, "last iterate")


def from_torchattacks(factory: Callable[[nn.Module], Any], model: nn.Module, *, seed: int = 0) -> TorchAttack:
    """Adapt an attack of torchattacks, and build it once to find mistakes in its arguments.

    Args:
        factory: makes the attack from a module, such as ``lambda net: torchattacks.PGD(net, eps=0.1)``.
        model: the victim.
        seed: of the attack's random numbers.

    Raises:
        UserError: the attack can't be built, an argument is text, or it isn't an attack.

    Example:
        >>> import torchattacks
        >>> attack = from_torchattacks(lambda net: torchattacks.PGDL2(net, eps=0.5), nn.Linear(2, 2))
        >>> attack.name, attack.eps, attack.norm
        ('torchattacks.PGDL2', 0.5, 'l2')
    """
    with kept_random_state(0, torch.device("cpu")):
        attack = _build(factory, model)
    title = f"torchattacks.{type(attack).__name__}"
    for argument, value in vars(attack).items():
        if argument in ("eps", "alpha", "steps", "step") and not _is_number(value):
            raise UserError(f"{argument} of {title} must be a number, got {value!r}; write 0.1, or 0.0314 for 8/255")
    eps, steps = getattr(attack, "eps", None), getattr(attack, "steps", None)
    if eps is None:
        return TorchAttack(factory, title, steps=steps, seed=seed)
    return TorchAttack(factory, title, float(eps), _norm_of(attack), steps, seed)


class _Scores(nn.Module):
    """A model's forward with its output checked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return class_scores(self.model, inputs)


def _build(factory: Callable[[nn.Module], Any], model: Callable[[Tensor], Tensor]) -> Any:
    if not isinstance(model, nn.Module) or next(model.parameters(), None) is None:
        raise UserError(f"torchattacks needs an nn.Module with parameters, got {type(model).__name__}; use PGD instead")
    scores = _Scores(model)
    scores.training = False  # else the library would switch the whole model back to training
    try:
        attack = factory(scores)
    except (TypeError, ValueError, AttributeError) as error:
        message = " ".join(str(error).split())
        raise UserError(f"attack can't be built: {message}; check the arguments of its class") from error
    if not callable(attack) or not hasattr(attack, "attack_mode"):
        raise UserError(
            f"attack must be one of lightning_poison.attacks or make one of torchattacks, got {type(attack).__name__}; "
            "write class_path: PGD or class_path: torchattacks.PGD"
        )
    return attack


def _aim(attack: Any, title: str) -> None:
    try:
        with redirect_stdout(io.StringIO()):
            attack.set_mode_targeted_by_function(lambda _, labels: labels)
    except ValueError as error:
        raise UserError(f"{title} has no targeted mode; leave target out, or use PGD") from error


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _norm_of(attack: Any) -> str:
    norm = str(getattr(attack, "norm", "")) or type(attack).__name__
    return "l2" if norm.lower().endswith("l2") else "linf"
