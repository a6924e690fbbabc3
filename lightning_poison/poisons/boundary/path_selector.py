"""What the selectors that follow adversarial paths have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_integer_field, check_kind, check_number
from lightning_poison.functional.pixels import Pixels
from lightning_poison.poisons.boundary.distances import BoundaryDistances, PathRule, boundary_distances
from lightning_poison.poisons.budget import BudgetedSelector
from lightning_poison.poisons.candidates import Candidates
from lightning_poison.poisons.surrogates import Surrogate, surrogate_network

__all__ = ["PathSelector", "PathTarget"]

PathTarget = Literal["relabelled", "untargeted"]


@dataclass(frozen=True)
class PathSelector(BudgetedSelector):
    """Follows the adversarial path of each candidate on a clean network, see :func:`attacks.adversarial_paths`.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        target: "relabelled": a path leads to the label that the point would get, where the clean data have that class,
            else, as "untargeted" always does, out of the point's own class.
        surrogate: the network; None: the one that came along with the data, else one that is trained now.
        step: length of a step, in pixel units (in those of the inputs where they leave [0, 1]).
        max_steps: the longest path that is followed.
        clip: keep paths within [0, 1]; they get longer. The thesis does not.

    Raises:
        UserError: an argument is out of its range.
    """

    target: PathTarget = "relabelled"
    surrogate: Surrogate | None = None
    step: Pixels = 0.01
    max_steps: int = 200
    clip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind("surrogate", self.surrogate, Surrogate, "TrainedSurrogate()", optional=True)
        if not isinstance(self.clip, bool):
            raise UserError(f"clip must be true or false, got {self.clip!r}")
        check_choice("target", self.target, ("relabelled", "untargeted"))
        step = check_number("step", float(Pixels(self.step)), minimum=1e-6, remedy="steps of 0.01 are usual")
        object.__setattr__(self, "step", step)
        check_integer_field(self, "max_steps", minimum=1)

    def aims(self, candidates: Candidates, index: Tensor) -> Tensor:
        """The class that each point's path leads to, shape (m,), int64; -1: out of its own."""
        new_labels = candidates.new_labels[index]
        known = new_labels < candidates.training_set.num_classes
        if self.target == "untargeted":
            known = torch.zeros_like(known)
        return torch.where(known, new_labels, -1)

    def distances(self, candidates: Candidates, index: Tensor, seed: int) -> BoundaryDistances:
        """How far the points are from the boundary.

        Args:
            candidates: all that can be flipped.
            index: shape (m,), int64: the points.
            seed: of the surrogate's training, where one is trained.

        Raises:
            UserError: the surrogate does not fit the data.
        """
        training_set = candidates.training_set
        network = surrogate_network(self.surrogate, training_set, seed)
        rule = PathRule(self.step, self.max_steps, self.clip)
        return boundary_distances(network, training_set, index, self.aims(candidates, index), rule)
