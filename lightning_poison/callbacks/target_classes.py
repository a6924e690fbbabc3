"""The classes that a callback's attacks and paths steer to."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_poison.attacks.targets import choose_targets
from lightning_poison.callbacks.training_points import clean_num_classes
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_integer

__all__ = ["TargetRule", "checked_classes", "target_in_words", "targets_of"]

TargetRule = int | Literal["next", "least_likely"]


def checked_classes(source: int | None, target: TargetRule | None) -> tuple[int | None, TargetRule | None]:
    """``source`` and ``target`` if they go together.

    Raises:
        UserError: they do not.

    Example:
        >>> checked_classes(1, "next")
        (1, 'next')
    """
    if source is not None:
        source = check_integer("source", source, minimum=0)
    if isinstance(target, str):
        check_choice("target", target, ("next", "least_likely"))
    elif target is not None:
        target = check_integer("target", target, minimum=0)
    if source is not None and target is None:
        raise UserError(f"source={source} needs target, the class to drive its samples to; or leave source out")
    if source is not None and source == target:
        raise UserError(f"target must differ from source, got {target} for both; choose another class")
    return source, target


def targets_of(
    rule: TargetRule | None, trainer: Any, model: nn.Module, inputs: Tensor, labels: Tensor
) -> Tensor | None:
    """The class that each sample is to be driven to, shape (n,), int64; None for an untargeted attack.

    A class that was made for poisons is nobody's next class.
    """
    if rule is None:
        return None
    if rule == "next":
        return (labels + 1) % clean_num_classes(trainer, model, inputs)
    with torch.no_grad():
        return choose_targets(rule, model, inputs, labels)


def target_in_words(rule: TargetRule) -> str:
    """A rule as part of a sentence.

    Example:
        >>> target_in_words(7), target_in_words("least_likely")
        ('class 7', 'the class that the victim finds least likely')
    """
    if rule == "next":
        return "the class after its own"
    return "the class that the victim finds least likely" if rule == "least_likely" else f"class {rule}"
