"""Flips by their influence on the loss of other points, through the last layer or the whole network.

The points that judge flips (the outer points) are drawn from the training set and take no part in anything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp
from torch.nn.functional import cross_entropy
from torch.utils.data import Subset, TensorDataset

from lightning_poison.attacks import Attack, frozen_eval
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_integer_field, check_kind, check_number_field
from lightning_poison.functional.progress import Progress
from lightning_poison.functional.random_streams import generator
from lightning_poison.functional.softmax_regression import SoftmaxRegression
from lightning_poison.functional.tangents import conjugate_gradients, jvp
from lightning_poison.poisons.base import Candidates
from lightning_poison.poisons.budget import ScoreSelector, check_classes
from lightning_poison.poisons.surrogates import Surrogate, surrogate_network
from lightning_poison.poisons.surrogates.trained import LastLayer
from lightning_poison.poisons.training_set import TrainingSet
from lightning_poison.poisons.unit_box import attacked_in_box, input_range

__all__ = ["InfluenceScore", "Linearised", "last_layer_tangents", "network_tangents"]

_LARGEST_SHARE = 5  # at most one point in five is an outer point
_CHUNK = 500
_STEPS, _TOLERANCE = 100, 1e-3  # of conjugate gradients


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
        return _outer_points(candidates.training_set, self.outer, self.outer_classes or self.classes, seed)

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
        network = _network_without(candidates.training_set, outer, self.surrogate, seed)
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
        rows = _others(data.num_points, outer)
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


# --- outer points -----------------------------------------------------------------------------------------------------


def _outer_points(training_set: TrainingSet, count: int, classes: list[int] | None, seed: int) -> Tensor:
    """Draw points that judge.

    Args:
        training_set: the clean data.
        count: how many; of fewer than five times as many a fifth is drawn.
        classes: theirs; None: every class.
        seed: of the draw.

    Returns:
        shape (m,), int64, rising.

    Raises:
        UserError: a class does not exist, or there are fewer than five points to draw from.
    """
    num_classes = training_set.num_classes
    for label in classes or []:
        if not 0 <= label < num_classes:
            raise UserError(f"outer_classes must lie in [0, {num_classes - 1}], got {label}")
    chosen = torch.arange(num_classes) if classes is None else torch.tensor(classes)
    members = torch.isin(training_set.labels, chosen).nonzero()[:, 0]
    drawn = min(count, len(members) // _LARGEST_SHARE)
    if not drawn:
        raise UserError(
            f"influence needs {_LARGEST_SHARE} training points of the classes that judge, got {len(members)}; "
            "name larger outer_classes"
        )
    order = torch.randperm(len(members), generator=generator(seed, "outer points"))
    return members[order[:drawn]].sort().values


def _network_without(training_set: TrainingSet, outer: Tensor, surrogate: Surrogate | None, seed: int) -> nn.Module:
    """The surrogate; where one is trained now, then without the points that judge.

    Args:
        training_set: the clean data.
        outer: shape (m,), int64: the points that judge.
        surrogate: what the user named; None: nothing.
        seed: of a surrogate's training.

    Raises:
        UserError: it does not fit the data.
    """
    if surrogate is None and training_set.network is not None:
        return surrogate_network(None, training_set, seed)

    def rest() -> TrainingSet:
        rows = _others(training_set.num_points, outer)
        everything = TensorDataset(training_set.inputs, training_set.labels)
        return TrainingSet(
            training_set.labels[rows],
            training_set.num_classes,
            dataset=Subset(everything, rows.tolist()),
            progress=training_set.progress,
        )

    key = ("without outer points", tuple(outer.tolist()))
    return surrogate_network(surrogate, training_set.remembered(key, rest), seed)


def _others(count: int, outer: Tensor) -> Tensor:
    """All of so many points but the outer ones, rising."""
    return torch.ones(count, dtype=torch.bool).index_fill_(0, outer, value=False).nonzero()[:, 0]


# --- last layer -------------------------------------------------------------------------------------------------------


def last_layer_tangents(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    num_classes: int,
    outer: Tensor,
    damping: float,
    perturbed: Callable[[nn.Module, Tensor, Tensor], Tensor],
) -> Tensor:
    r"""How each point's scores move along :math:`s = H^{-1} \nabla L_\mathrm{outer}`.

    The last layer is fitted anew, to the features of all points but the outer ones, with an L2 penalty, so that its
    weights are an exact minimum; H is the Hessian of that objective.

    Args:
        network: ends in a linear layer.
        inputs: shape (n, ...).
        labels: shape (n,), int64.
        num_classes: outputs of the new last layer.
        outer: shape (m,), int64: the points that judge.
        damping: the penalty, relative to the mean square of the features.
        perturbed: moves outer inputs, given the network with the new last layer and their labels.

    Returns:
        shape (n, K), float64.

    Raises:
        UserError: the network does not end in a linear layer, or the damping is too small.
    """
    last = LastLayer(network)
    features, scale = _with_constant(last.features(inputs))
    kept = _others(len(labels), outer)
    model = SoftmaxRegression(features[kept], labels[kept], num_classes, strength=damping * scale**2)
    judge = last.replaced(model.weights[:, :-1], model.weights[:, -1] * scale)
    moved = perturbed(judge, inputs[outer], labels[outer])
    seen, _ = _with_constant(last.features(moved), scale)
    errors = torch.softmax(seen @ model.weights.T, dim=1)
    errors[torch.arange(len(outer)), labels[outer]] -= 1
    return features @ model.solve(errors.T @ seen / len(outer)).T


def _with_constant(features: Tensor, scale: float | None = None) -> tuple[Tensor, float]:
    """The features in float64 with a constant as large as their root mean square, and this constant."""
    wide = features.double()
    scale = math.sqrt(float(wide.square().mean())) if scale is None else scale
    if scale == 0:
        raise UserError("the surrogate's last layer sees zeros only; name a surrogate that has learnt the data")
    return torch.cat([wide, torch.full((len(wide), 1), scale, dtype=torch.float64)], dim=1), scale


# --- whole network ----------------------------------------------------------------------------------------------------


def network_tangents(
    network: nn.Module,
    inputs: Tensor,
    rows: Tensor,
    curvature: Tensor,
    outer: tuple[Tensor, Tensor],
    damping: float,
    progress: Progress,
) -> Tensor:
    r"""How each point's scores move along :math:`s = (G + \lambda I)^{-1} \nabla L_\mathrm{outer}`.

    G is the Gauss-Newton matrix of the mean cross-entropy, which is positive semi-definite where the Hessian need not
    be; the system is solved by conjugate gradients with products alone.

    Args:
        network: maps (N, ...) to logits (N, K).
        inputs: shape (n, ...).
        rows: shape (m,), int64: the points whose scores are asked for.
        curvature: shape (c,), int64: the points that G is the mean over.
        outer: inputs (o, ...) and labels (o,) of the points that judge.
        damping: lambda, positive.
        progress: shows how far the work is.

    Returns:
        shape (m, K), float64.

    Raises:
        UserError: the system is too badly conditioned to be solved.
    """
    with frozen_eval(network):
        linear = Linearised(network)
        device = linear.device
        gradient = torch.zeros(linear.size, dtype=torch.float64)
        for part, labels in zip(torch.split(outer[0], _CHUNK), torch.split(outer[1], _CHUNK), strict=True):
            gradient += linear.loss_gradient(part.to(device), labels.to(device)) / len(outer[0])

        def product(direction: Tensor) -> Tensor:
            image = damping * direction
            for part in torch.split(curvature, _CHUNK):
                image += linear.curvature_product(inputs[part].to(device), direction) / len(curvature)
            return image

        with progress("influence: conjugate gradients", _STEPS) as advance:
            solution = conjugate_gradients(product, gradient, tolerance=_TOLERANCE, max_steps=_STEPS, advance=advance)
        if solution.residual > 0.1:
            raise UserError(
                f"damping must be larger for this network, got {damping:g}, with which {_STEPS} steps of conjugate "
                f"gradients leave {solution.residual:.0%} of the residual"
            )
        with progress("influence: candidates", len(rows)) as advance:
            parts = []
            for part in torch.split(rows, _CHUNK):
                parts.append(linear.tangents(inputs[part], solution.value))
                advance(len(part))
    return torch.cat(parts)


class Linearised:
    """A network as a function of its weights, near those that it has.

    Args:
        network: maps (N, ...) to logits (N, K); use it within ``frozen_eval(network)``.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._weights = {name: weight.detach() for name, weight in network.named_parameters()}
        self.device = next(iter(self._weights.values())).device
        self.size = sum(weight.numel() for weight in self._weights.values())

    def tangents(self, inputs: Tensor, direction: Tensor) -> Tensor:
        """Derivative J v of the logits along a direction of the weights: (N, K), for v of shape (``size``,)."""
        return self._pushed(inputs.to(self.device), direction)[1].double().cpu()

    def loss_gradient(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Gradient of the summed cross-entropy, shape (``size``,), float64."""
        pull: Callable[[Tensor], tuple[dict[str, Tensor]]]
        loss, pull = vjp(  # type: ignore[misc]  # the pair that has_aux=False gives
            lambda weights: cross_entropy(self._scores(weights, inputs), labels, reduction="sum"), self._weights
        )
        return self._flat(pull(torch.ones_like(loss))[0])

    def curvature_product(self, inputs: Tensor, direction: Tensor) -> Tensor:
        """Gauss-Newton product, sum of J^T (diag(p) - p p^T) J v, shape (``size``,), float64."""
        scores, tangents = self._pushed(inputs, direction)
        p = torch.softmax(scores, dim=1)
        pushed = p * (tangents - (p * tangents).sum(dim=1, keepdim=True))
        pull: Callable[[Tensor], tuple[dict[str, Tensor]]]
        _, pull = vjp(lambda weights: self._scores(weights, inputs), self._weights)  # type: ignore[misc]  # as above
        return self._flat(pull(pushed)[0])

    def _scores(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._network, weights, (inputs,))
        return logits

    def _pushed(self, inputs: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        parts = torch.split(direction, [weight.numel() for weight in self._weights.values()])
        tangents = {
            name: part.to(weight).view_as(weight)
            for (name, weight), part in zip(self._weights.items(), parts, strict=True)
        }
        scores, moved = jvp(lambda weights: self._scores(weights, inputs), (self._weights,), (tangents,))
        return scores, moved

    @staticmethod
    def _flat(gradient: dict[str, Tensor]) -> Tensor:
        return torch.cat([part.flatten() for part in gradient.values()]).double().cpu()
