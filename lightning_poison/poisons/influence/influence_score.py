"""Flips by their influence on the loss of other points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_poison.attacks import Attack
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_integer_field, check_kind, check_number_field
from lightning_poison.functional.random_streams import generator
from lightning_poison.poisons.candidates import Candidates
from lightning_poison.poisons.classes import check_classes
from lightning_poison.poisons.influence.last_layer import last_layer_tangents
from lightning_poison.poisons.influence.outer_points import network_without, outer_points
from lightning_poison.poisons.influence.whole_network import network_tangents
from lightning_poison.poisons.ranking import ScoreSelector
from lightning_poison.poisons.surrogates import Surrogate
from lightning_poison.poisons.training_set import TrainingSet
from lightning_poison.poisons.unit_box import attacked_in_box, input_range

__all__ = ["InfluenceScore"]


@dataclass(frozen=True)
class InfluenceScore(ScoreSelector):
    r"""Flips the points whose flip raises the loss of outer points most, by influence functions.

    To first order, moving the weight 1/n of a training point from z = (x, y) to z' = (x, y') changes the mean loss of
    the outer points by

    .. math:: -\frac1n \nabla L_\mathrm{outer}^T H^{-1} (\nabla L(z') - \nabla L(z))
              = \frac1n \left( (J s)_{y'} - (J s)_y \right), \quad s = H^{-1} \nabla L_\mathrm{outer}

    (Rosenfeld et al., "Certified robustness to label-flipping attacks via randomized smoothing", 2020, appendix C,
    after Koh and Liang, 2017), J being the derivative of the scores of x with respect to the weights: for the
    cross-entropy the gradients differ by J^T (e_y - e_{y'}). One solve serves all candidates.

    The outer points are drawn from the training set. A surrogate that is trained now does not see them, and neither
    does the refitted last layer; they are flipped only when all others are.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        weights: "last_layer": those of the last layer, which is refitted with an L2 penalty on what it sees, H being
            its exact Hessian; "network": all as they are, H being the Gauss-Newton matrix.
        surrogate: the network; None: the one that came along with the data, else one that is trained now.
        outer: how many outer points; at most a fifth of the points of their classes is used.
        outer_classes: their classes; None: ``classes``.
        attack: perturbs the outer points (their loss is then the worst case's, as far as the attack finds it, whose
            derivative is that at the perturbed points, by Danskin's theorem); its sizes are shares of the range of the
            inputs where these leave [0, 1]. None: natural points.
        damping: last_layer: the penalty, relative to the mean square of the features; network: added to the diagonal.
        curvature: network: H is the mean over so many points, drawn at random.

    Raises:
        UserError: an argument is out of its range, the surrogate does not fit the data, or labels are flipped to a new
            class, which ``weights="network"`` cannot judge.

    Example:
        >>> from lightning_poison.attacks import PGD
        >>> InfluenceScore(per_class=5, attack=PGD(eps=0.05, steps=10)).weights
        'last_layer'
    """

    weights: Literal["last_layer", "network"] = "last_layer"
    surrogate: Surrogate | None = None
    outer: int = 1000
    outer_classes: list[int] | None = None
    attack: Attack | None = None
    damping: float = 0.01
    curvature: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("weights", self.weights, ("last_layer", "network"))
        check_integer_field(self, "outer", minimum=1)
        check_integer_field(self, "curvature", minimum=1)
        check_number_field(self, "damping", minimum=1e-12, remedy="0.01 is usual")
        object.__setattr__(self, "outer_classes", check_classes(self.outer_classes, "outer_classes"))
        check_kind("surrogate", self.surrogate, Surrogate, "TrainedSurrogate()", optional=True)
        check_kind("attack", self.attack, Attack, "PGD(eps=0.05)", optional=True)

    def check(self, candidates: Candidates) -> None:
        """Refuse a budget that the data cannot fill, and what the whole network cannot judge.

        Raises:
            UserError: there is such a thing.
        """
        super().check(candidates)
        num_classes = candidates.training_set.num_classes
        if self.weights == "network" and bool((candidates.new_labels >= num_classes).any()):
            raise UserError(
                "weights=network cannot judge flips to a new class, which the network has no score for; use "
                "weights=last_layer"
            )
        self.outer_points(candidates, 0)

    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        """Predicted change of the mean outer loss by each flip; outer points come last."""
        influence = self.influence(candidates, index, seed)
        outer = torch.isin(index, self.outer_points(candidates, seed))
        return influence.masked_fill(outer, -torch.inf)

    def outer_points(self, candidates: Candidates, seed: int) -> Tensor:
        """The points that judge, shape (m,), int64, rising."""
        return outer_points(candidates.training_set, self.outer, self.outer_classes or self.classes, seed)

    def influence(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        """The predicted change of the mean outer loss by the flip of each point.

        Args:
            candidates: all that can be flipped.
            index: shape (m,), int64: the points.
            seed: of the outer points and of the surrogate's training.

        Returns:
            shape (m,), float64.

        Raises:
            UserError: see the class.
        """
        self.check(candidates)
        outer = self.outer_points(candidates, seed)
        network = network_without(candidates.training_set, outer, self.surrogate, seed)
        labels, new_labels = candidates.labels[index], candidates.new_labels[index]
        if self.weights == "last_layer":
            tangents = self._last_layer(network, candidates, outer)[index]
        else:
            tangents = self._network(network, candidates, outer, index, seed)
        moved = tangents.gather(1, new_labels[:, None]) - tangents.gather(1, labels[:, None])
        return moved.squeeze(1) / (candidates.training_set.num_points - len(outer))

    def _last_layer(self, network: nn.Module, candidates: Candidates, outer: Tensor) -> Tensor:
        data = candidates.training_set
        num_classes = max(data.num_classes, int(candidates.new_labels.max()) + 1)
        perturb = partial(self._perturbed, data)
        return last_layer_tangents(network, data.inputs, data.labels, num_classes, outer, self.damping, perturb)

    def _network(self, network: nn.Module, candidates: Candidates, outer: Tensor, index: Tensor, seed: int) -> Tensor:
        data = candidates.training_set
        kept = torch.ones(data.num_points, dtype=torch.bool)
        kept[outer] = False
        rows = kept.nonzero()[:, 0]
        order = torch.randperm(len(rows), generator=generator(seed, "curvature points"))
        moved = self._perturbed(data, network, data.inputs[outer], data.labels[outer])
        return network_tangents(
            network,
            data.inputs,
            index,
            rows[order[: self.curvature]],
            (moved, data.labels[outer]),
            self.damping,
            data.progress,
        )

    def _perturbed(self, data: TrainingSet, network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        if self.attack is None:
            return inputs
        return attacked_in_box(input_range(data), self.attack, network, inputs, labels)
