"""How the victims of an experiment are measured."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_poison.attacks import Attack, class_scores
from lightning_poison.attacks.base import GradientMaskingWarning
from lightning_poison.errors import UserError
from lightning_poison.experiments.subject import Subject
from lightning_poison.functional.checks import check_choice, check_integer_field
from lightning_poison.functional.pixels import Radius
from lightning_poison.functional.random_streams import generator
from lightning_poison.nets.building import in_parts

__all__ = ["Evaluation", "TargetClass"]

TargetClass = int | Literal["next"]


@dataclass(frozen=True)
class Evaluation:
    """Natural and adversarial accuracy on clean test points.

    Adversarial accuracy is untargeted the share of points that keep their label under attack (one that is wrong anyway
    does not), targeted the share that is not driven to the target. Radii are attacked from the smallest up, and a point
    that is fooled at one counts as fooled at every larger one, whose ball holds the same example. Of a network whose
    scores differ from pass to pass each radius counts on its own.

    Args:
        attack: run at each radius; of ``PGD`` with its losses the worst case for each point counts.
        eps: radii in pixel units.
        source: class A; only test points of this class are attacked. Needs ``target``.
        target: class B that the attack steers to, or "next" for the class after the label; None: untargeted.
        max_test_samples: how many of these test points are attacked, drawn once and for all; None: all.

    Raises:
        UserError: an argument is out of its range.
    """

    attack: Attack
    eps: tuple[float, ...]
    source: int | None = None
    target: TargetClass | None = None
    max_test_samples: int | None = None

    def __post_init__(self) -> None:
        if not self.eps:
            raise UserError("eps must name at least one radius, got an empty list; write [0.1]")
        object.__setattr__(self, "eps", tuple(sorted({float(Radius(radius)) for radius in self.eps})))
        if len(set(self.names)) < len(self.eps):
            raise UserError(f"eps must differ in their first six digits, got {list(self.eps)}")
        attacks = [self._at(radius) for radius in self.eps]
        object.__setattr__(self, "attack", attacks[0])  # its own radius decides nothing
        if isinstance(self.target, str):
            check_choice("target", self.target, ("next",))
        for name in ("source", "target", "max_test_samples"):
            if getattr(self, name) is not None and not isinstance(getattr(self, name), str):
                check_integer_field(self, name, minimum=int(name == "max_test_samples"))
        if self.source is not None and (self.target is None or self.source == self.target):
            raise UserError(
                f"source={self.source} needs target, another class to drive its points to, got {self.target}"
            )

    @property
    def names(self) -> list[str]:
        """The radii as text."""
        return [f"{radius:.6g}" for radius in self.eps]

    def in_words(self, attacked: int) -> str:
        """What adversarial accuracy is here.

        Args:
            attacked: number of test points.
        """
        whose = "test points" if self.source is None else f"test points of class {self.source}"
        if self.target is None:
            keeps = "keep their label"
        else:
            goal = "the next class" if self.target == "next" else f"class {self.target}"
            keeps = f"are not driven to {goal}"
        losses, steps = getattr(self.attack, "losses", ()), getattr(self.attack, "steps", None)
        parts = [self.attack.name, self.attack.norm or "", *([] if steps is None else [f"{steps} steps"])]
        parts += [f"worst case over {' and '.join(losses)}"] if len(losses) > 1 else []
        return f"Adversarial accuracy is the share of {attacked} {whose} that {keeps} ({', '.join(parts)})."

    def rows(self, subject: Subject) -> Tensor:
        """Which test points are attacked: shape (m,), int64, rising.

        Raises:
            UserError: a class does not exist, or there is no such point.
        """
        labels = subject.test_labels
        if len(labels) and int(labels.max()) >= subject.num_classes:
            raise UserError(
                f"test labels must be among the {subject.num_classes} classes of the training data, got "
                f"{int(labels.max())}; take such points out of the test data"
            )
        for name in ("source", "target"):
            value = getattr(self, name)
            if isinstance(value, int) and value >= subject.num_classes:
                raise UserError(f"{name} must be one of the {subject.num_classes} classes, got {value}; count from 0")
        wanted = torch.ones_like(labels, dtype=torch.bool) if self.source is None else labels == self.source
        if isinstance(self.target, int):
            wanted &= labels != self.target
        rows = wanted.nonzero()[:, 0]
        if not len(rows):
            of_class = "" if self.source is None else f" of class {self.source}"
            raise UserError(f"there is no test point{of_class} to attack; choose another source or target")
        if self.max_test_samples is None or self.max_test_samples >= len(rows):
            return rows
        drawn = torch.randperm(len(rows), generator=generator(0, "test points"))[: self.max_test_samples]
        return rows[drawn.sort().values]

    def measure(self, network: nn.Module, subject: Subject, device: torch.device | str = "cpu") -> dict[str, Any]:
        """Measure a network.

        Args:
            network: maps (N, ...) to logits.
            subject: its test points.
            device: where the network is.

        Returns:
            "natural": share of all test points that are right, "attacked": how many are attacked, and "withstood": how
            many of them withstand at each radius.
        """
        rows = self.rows(subject)
        inputs, labels = subject.test_inputs[rows].to(device), subject.test_labels[rows].to(device)
        targets = self._targets(labels, subject.num_classes)
        standing = torch.arange(len(rows))
        withstood = {}
        for radius, name in zip(self.eps, self.names, strict=True):
            if not len(standing):
                withstood[name] = 0
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", GradientMaskingWarning)
                result = self._at(radius)(
                    network,
                    inputs[standing],
                    labels[standing],
                    targets=None if targets is None else targets[standing],
                    sample_ids=rows[standing],
                )
            withstood[name] = int((~result.fooled).sum())
            if result.criterion != "fresh evaluation":  # of which every radius has its own: the luckiest would decide
                standing = standing[~result.fooled.cpu()]
        return {"natural": self._natural(network, subject), "attacked": len(rows), "withstood": withstood}

    def _at(self, radius: float) -> Attack:
        if not dataclasses.is_dataclass(self.attack) or self.attack.norm is None or self.attack.own_inputs:
            raise UserError(
                f"attack must have a radius eps and need no inputs of its own, got {self.attack.name}; use PGD"
            )
        given: Any = self.attack
        bounded: Attack = dataclasses.replace(given, eps=radius)
        return bounded

    def _targets(self, labels: Tensor, num_classes: int) -> Tensor | None:
        if self.target is None:
            return None
        return (labels + 1) % num_classes if isinstance(self.target, str) else torch.full_like(labels, self.target)

    def _natural(self, network: nn.Module, subject: Subject) -> float:
        predicted = in_parts(network, subject.test_inputs, partial(class_scores, network)).argmax(dim=1)
        return float((predicted == subject.test_labels).double().mean())
