"""Attacks of the torchattacks library, behind the same interface."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_poison.attacks.base import Attack, AttackResult, checked_radius
from lightning_poison.attacks.model import class_scores
from lightning_poison.attacks.samples import Samples
from lightning_poison.errors import UserError
from lightning_poison.functional.random_streams import kept_random_state, mix_seed

__all__ = ["TorchAttack", "from_torchattacks"]

_SIZES = ("eps", "alpha")
_NUMBERS = (*_SIZES, "steps", "step")
_FRACTION = re.compile(r"\d+(\.\d+)?(/[1-9]\d*)?")


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

    def _run(self, model: Callable[[Tensor], Tensor], samples: Samples) -> AttackResult:
        examples = samples.inputs.clone()
        with torch.no_grad():
            natural = class_scores(model, samples.inputs)
            num_classes, fooled = natural.shape[1], samples.fooled(natural)
            rows = (~fooled | samples.stochastic).nonzero().squeeze(1)
        if len(rows):
            left = samples[rows]
            with kept_random_state(mix_seed(self.seed, int(samples.ids[0])), examples.device):
                scores = _Scores(model)
                attack = _build(self.factory, scores)
                _check_classes(attack, self.title, num_classes)
                if left.targets is not None:
                    _aim(attack, self.title, left.targets)
                found = _examples(attack, scores, self.title, left.inputs.contiguous(), left.labels, num_classes)
            examples[rows] = found.detach().to(examples)
            with torch.no_grad():
                fooled[rows] = left.fooled(class_scores(model, examples[rows]))
        return AttackResult(examples, fooled, "last iterate")


def from_torchattacks(factory: Callable[[nn.Module], Any], model: nn.Module, *, seed: int = 0) -> TorchAttack:
    """Adapt an attack of torchattacks, and build it once to find mistakes in its arguments.

    The library's arguments have no types. A ``functools.partial``, which the command line makes of a class path, may
    hold sizes as fractions in words, such as ``"8/255"``.

    Args:
        factory: makes the attack from a module, such as ``lambda net: torchattacks.PGD(net, eps=0.1)``.
        model: the victim.
        seed: of the attack's random numbers.

    Raises:
        UserError: the attack can't be built, an argument is text or no size in pixel units, or it isn't an attack.

    Example:
        >>> import torchattacks
        >>> attack = from_torchattacks(lambda net: torchattacks.PGDL2(net, eps=0.5), nn.Linear(2, 2))
        >>> attack.name, attack.eps, attack.norm
        ('torchattacks.PGDL2', 0.5, 'l2')
    """
    factory = _with_fractions(factory)
    with kept_random_state(0, torch.device("cpu")):
        attack = _build(factory, _Scores(model))
    title = f"torchattacks.{type(attack).__name__}"
    for argument, value in vars(attack).items():
        if argument in _NUMBERS and not _is_number(value):
            raise UserError(f"{argument} of {title} must be a number, got {value!r}; write 0.1 or 8/255")
    eps, steps = getattr(attack, "eps", None), getattr(attack, "steps", None)
    if eps is None:
        return TorchAttack(factory, title, steps=steps, seed=seed)
    norm = _norm_of(attack)
    return TorchAttack(factory, title, checked_radius("eps", eps, norm), norm, steps, seed)


class _Scores(nn.Module):
    """A model's forward with its output checked, as the library needs it."""

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        if not isinstance(model, nn.Module) or next(model.parameters(), None) is None:
            given = type(model).__name__
            raise UserError(f"torchattacks needs an nn.Module with parameters, got {given}; use PGD instead")
        self.model = model
        self.training = False  # else the library would switch the whole model back to training
        self.failed = False

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.requires_grad:
            inputs = inputs.view_as(inputs)
            # Several attacks call ``view`` on the gradient.
            inputs.register_hook(Tensor.contiguous)  # type: ignore[no-untyped-call]  # torch has no types there
        self.failed = True
        scores = class_scores(self.model, inputs)
        self.failed = False
        return scores.to(torch.promote_types(scores.dtype, inputs.dtype))  # the library mixes them with the inputs


def _build(factory: Callable[[nn.Module], Any], scores: _Scores) -> Any:
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


def _aim(attack: Any, title: str, targets: Tensor) -> None:
    try:
        with redirect_stdout(io.StringIO()):
            attack.set_mode_targeted_by_function(lambda _, labels: targets.to(labels.device))
    except ValueError as error:
        raise UserError(f"{title} has no targeted mode; leave target out, or use PGD") from error


def _examples(attack: Any, scores: _Scores, title: str, inputs: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Run the library's attack; where it fails and not the model, say so in a line."""
    try:
        found: Tensor = attack(inputs, labels)
    except (UserError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if scores.failed:
            raise
        message = " ".join(str(error).split())
        raise UserError(
            f"{title} can't attack inputs of shape {tuple(inputs.shape[1:])} among {num_classes} classes: {message}; "
            "use another attack"
        ) from error
    return found


def _check_classes(attack: Any, title: str, num_classes: int) -> None:
    """Some losses compare more classes than there may be; who aims at one after another has to know how many."""
    for part in (attack, *vars(attack).get("_attacks", {}).values()):
        needed = _classes_of_its_loss(part)
        if num_classes < needed:
            within = "" if part is attack else f" (the {type(part).__name__} in it)"
            raise UserError(
                f"{title}{within} needs at least {needed} classes, as its loss compares so many scores, got a model of "
                f"{num_classes}; use torchattacks.APGD with loss=ce, torchattacks.Square, or PGD"
            )
    declared = getattr(attack, "n_classes", None)
    if declared is None and getattr(attack, "multi_targeted", True) and hasattr(attack, "n_target_classes"):
        declared = attack.n_target_classes + 1
    if declared is not None and declared != num_classes:
        raise UserError(
            f"n_classes of {title} must be the model's number of classes, {num_classes}, got {declared}; "
            f"write n_classes={num_classes}"
        )


def _classes_of_its_loss(attack: Any) -> int:
    """The difference-of-logits ratio divides by the first score less the third, targeted less the fourth, too."""
    if type(attack).__name__ == "APGDT":
        return 4
    return 3 if getattr(attack, "loss", None) == "dlr" else 2


def _with_fractions(factory: Callable[[nn.Module], Any]) -> Callable[[nn.Module], Any]:
    """``factory`` with sizes that are written as fractions turned into numbers."""
    if not isinstance(factory, partial):
        return factory
    texts = {name: value for name, value in factory.keywords.items() if name in _SIZES and isinstance(value, str)}
    sizes = {name: float(Fraction(value)) for name, value in texts.items() if _FRACTION.fullmatch(value)}
    return partial(factory, **sizes) if sizes else factory


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _norm_of(attack: Any) -> str:
    norm = str(getattr(attack, "norm", "")) or type(attack).__name__
    return "l2" if norm.lower().endswith("l2") else "linf"
