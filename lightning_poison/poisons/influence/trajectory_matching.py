"""Flips whose gradients lead a network where an expert was led."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_poison.attacks import PGD, Attack, frozen_eval
from lightning_poison.ensembles import TrainingRecipe, train_networks
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer_field, check_kind
from lightning_poison.functional.random_streams import mix_seed
from lightning_poison.nets import SmallNet, net_for
from lightning_poison.nets.building import check_net_maker
from lightning_poison.poisons.base import Candidates
from lightning_poison.poisons.budget import ScoreSelector
from lightning_poison.poisons.influence.influence_score import Linearised
from lightning_poison.poisons.surrogates import Surrogate, surrogate_network
from lightning_poison.poisons.unit_box import attacked_in_box, input_range

__all__ = ["TrajectoryMatching", "matching_scores"]

_CHUNK = 500


@dataclass(frozen=True)
class TrajectoryMatching(ScoreSelector):
    r"""Flips the labels whose gradients best match the trajectory of an expert.

    After FLIP (Jha, Hayase and Oh, "Label poisoning is all you need", 2023). The expert is trained on the clean points
    *and* on a perturbed copy of each candidate that carries the new label: what FLIP's trigger is for a back door, the
    adversarial perturbation is here. Along its way, at weights theta, FLIP compares a step on relabelled clean points
    (gradient g) with a step of the expert (g_e) by :math:`\|g - g_e\|^2 / \|g_e\|^2`. A flip is scored by how fast this
    falls as the label moves over, summed over the checkpoints: with v = g - g_e and J the derivative of the scores of
    the point, :math:`((J v)_{y'} - (J v)_y) / \|g_e\|^2` (times 2 / n).

    What it is not: FLIP optimises soft labels over many passes and experts; this is the first-order step from the clean
    labels, from one expert. And there is no trigger at test time, so nothing says that matching is memorised; take it
    as a baseline.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        attack: perturbs the copies, towards the new label where the clean data have that class; None: PGD of radius
            0.1 with 10 steps. Sizes are shares of the range of the inputs where these leave [0, 1].
        surrogate: the network that is attacked; None: the one that came along with the data, else one trained now.
        net: makes the expert when called with ``num_classes``; None: one for the shape of the inputs.
        recipe: how the expert is trained; None: 20 epochs.
        checkpoints: how many epochs of the expert are looked at, evenly spread, the last among them.

    Raises:
        UserError: an argument is out of its range, or the surrogate does not fit the data.

    Example:
        >>> TrajectoryMatching(per_class=5, recipe=TrainingRecipe(epochs=10)).checkpoints
        5
    """

    attack: Attack | None = None
    surrogate: Surrogate | None = None
    net: Callable[[int], SmallNet] | Callable[[int], nn.Module] | None = None
    recipe: TrainingRecipe | None = None
    checkpoints: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer_field(self, "checkpoints", minimum=1)
        check_kind("attack", self.attack, Attack, "PGD(eps=0.1)", optional=True)
        check_kind("surrogate", self.surrogate, Surrogate, "TrainedSurrogate()", optional=True)
        check_net_maker(self.net)
        check_kind("recipe", self.recipe, TrainingRecipe, "TrainingRecipe(epochs=20)", optional=True)

    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        """How fast the matching loss falls as the label of each point moves over."""
        data = candidates.training_set
        labels, new_labels = candidates.labels[index], candidates.new_labels[index]
        copies = self._perturbed(candidates, index, seed)
        target = torch.cat([data.inputs, copies]), torch.cat([data.labels, new_labels])
        path = self._expert(target, max(data.num_classes, int(new_labels.max()) + 1), candidates, seed)
        total = torch.zeros(len(index), dtype=torch.float64)
        with data.progress("trajectory matching", len(path)) as advance:
            for network in path:
                total += matching_scores(
                    network, (data.inputs, data.labels), target, data.inputs[index], labels, new_labels
                )
                advance(1)
        return total

    def _perturbed(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        data, attack = candidates.training_set, self.attack or PGD(eps=0.1, steps=10)
        network = surrogate_network(self.surrogate, data, seed)
        new_labels = candidates.new_labels[index]
        known = new_labels < data.num_classes
        copies = data.inputs[index].clone()
        for rows, aimed in ((known.nonzero()[:, 0], True), ((~known).nonzero()[:, 0], False)):
            if len(rows):
                targets = new_labels[rows] if aimed else None
                labels = candidates.labels[index[rows]]
                copies[rows] = attacked_in_box(input_range(data), attack, network, copies[rows], labels, targets)
        return copies

    def _expert(
        self, target: tuple[Tensor, Tensor], num_classes: int, candidates: Candidates, seed: int
    ) -> list[nn.Module]:
        """The expert after some of its epochs."""
        recipe, own_seed = self.recipe or TrainingRecipe(), mix_seed(seed, "expert")
        epochs = {-(-recipe.epochs * part // self.checkpoints) - 1 for part in range(1, self.checkpoints + 1)}
        path: dict[int, nn.Module] = {}

        def keep(epoch: int, networks: list[nn.Module]) -> None:
            if epoch in epochs:
                path[epoch] = copy.deepcopy(networks[0]).eval()

        data = candidates.training_set
        with data.progress("training an expert", recipe.epochs) as advance:
            trained = train_networks(
                self.net or net_for(data.inputs.shape[1:]),
                *target,
                num_classes,
                [own_seed],
                recipe,
                order_seed=own_seed,
                after_epoch=keep,
                advance=advance,
            )
        if not trained[0].loss < torch.inf:
            raise UserError("the expert's training diverged; lower recipe.lr")
        return list(path.values())


def matching_scores(
    network: nn.Module,
    clean: tuple[Tensor, Tensor],
    target: tuple[Tensor, Tensor],
    inputs: Tensor,
    labels: Tensor,
    new_labels: Tensor,
) -> Tensor:
    r"""Fall of :math:`\|g - g_e\|^2 / \|g_e\|^2` per label mass n / 2 that moves over, for each point.

    Args:
        network: maps (N, ...) to logits (N, K); where gradients are taken.
        clean: inputs and labels of g, the mean gradient of the cross-entropy.
        target: inputs and labels of g_e.
        inputs: shape (m, ...): the points, which are among the clean ones.
        labels: shape (m,), int64.
        new_labels: shape (m,), int64.

    Returns:
        shape (m,), float64.
    """
    with frozen_eval(network):
        linear = Linearised(network)
        towards = _mean_gradient(linear, *target)
        away = _mean_gradient(linear, *clean) - towards
        tangents = torch.cat([linear.tangents(part, away) for part in torch.split(inputs, _CHUNK)])
    moved = tangents.gather(1, new_labels[:, None]) - tangents.gather(1, labels[:, None])
    return moved.squeeze(1) / float(towards.square().sum())


def _mean_gradient(linear: Linearised, inputs: Tensor, labels: Tensor) -> Tensor:
    total = torch.zeros(linear.size, dtype=torch.float64)
    for part, own in zip(torch.split(inputs, _CHUNK), torch.split(labels, _CHUNK), strict=True):
        total += linear.loss_gradient(part.to(linear.device), own.to(linear.device))
    return total / len(inputs)
