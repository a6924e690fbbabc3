"""Points that are hard to learn: forgotten most often, or with the highest loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_poison.ensembles import TrainedNetwork, TrainingRecipe, train_networks
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer_field, check_kind
from lightning_poison.functional.class_graph import order_ranks
from lightning_poison.functional.forgetting import forgetting_events
from lightning_poison.functional.losses import cross_entropy
from lightning_poison.functional.random_streams import mix_seed
from lightning_poison.nets import SmallNet, net_for
from lightning_poison.nets.building import check_net_maker
from lightning_poison.poisons.base import Candidates
from lightning_poison.poisons.budget import ScoreSelector
from lightning_poison.poisons.surrogates import Surrogate, check_surrogate, surrogate_network, surrogate_scores
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["ForgettingEvents", "HighestLoss"]


@dataclass(frozen=True)
class ForgettingEvents(ScoreSelector):
    """Flips the points that clean training runs forget most often.

    A point is forgotten when it was right the last time that its batch came up and is wrong this time
    (:func:`functional.forgetting.forgetting_events`, Toneva et al., 2019). Points that a run never got right come
    first, then those with most events over all runs, then those that were wrong most often.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        net: makes the network when called with ``num_classes=K``; None: one for the shape of the inputs.
        recipe: how it is trained; None: 20 epochs.
        runs: how many training runs, of different initial weights and orders of the points.

    Raises:
        UserError: an argument is out of its range, or the network does not learn the data.

    Example:
        >>> ForgettingEvents(per_class=5, recipe=TrainingRecipe(epochs=30), runs=2).runs
        2
    """

    net: Callable[[int], SmallNet] | Callable[[int], nn.Module] | None = None
    recipe: TrainingRecipe | None = None
    runs: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer_field(self, "runs", minimum=1)
        check_net_maker(self.net)
        check_kind("recipe", self.recipe, TrainingRecipe, "TrainingRecipe(epochs=20)", optional=True)
        if self.recipe is not None and self.recipe.epochs < 2:
            raise UserError("recipe.epochs must be at least 2 for a point to be forgotten, got 1; 20 are usual")

    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        """The place in the order of forgetting, from 0 for the best remembered."""
        training_set = candidates.training_set
        key = ("forgetting", self.net, self.recipe, self.runs, seed)
        right = training_set.remembered(key, lambda: torch.stack(self._histories(training_set, seed)))[:, :, index]
        never = (~right.any(dim=1)).sum(dim=0)
        events = torch.stack([forgetting_events(run) for run in right]).sum(dim=0)
        wrong = (~right).sum(dim=(0, 1))
        # Ranks count up, and of equal scores the first in the data is to win: hence the order from the back.
        ranks = order_ranks(*(key.flip(0) for key in (never, events, wrong))).flip(0)
        return ranks.double()

    def _histories(self, training_set: TrainingSet, seed: int) -> list[Tensor]:
        recipe = self.recipe or TrainingRecipe()
        with training_set.progress("training for forgetting events", self.runs * recipe.epochs) as advance:
            return [
                self._history(training_set, recipe, mix_seed(seed, "forgetting", run), advance)
                for run in range(self.runs)
            ]

    def _history(
        self, training_set: TrainingSet, recipe: TrainingRecipe, seed: int, advance: Callable[[int], object]
    ) -> Tensor:
        trained: list[TrainedNetwork] = train_networks(
            self.net or net_for(training_set.inputs.shape[1:]),
            training_set.inputs,
            training_set.labels,
            training_set.num_classes,
            [seed],
            recipe,
            order_seed=seed,
            history=True,
            advance=advance,
        )
        check_surrogate(trained[0].module, training_set)
        right = trained[0].right
        assert right is not None  # noqa: S101  # it was asked for
        return right.cpu()


@dataclass(frozen=True)
class HighestLoss(ScoreSelector):
    """Flips the points whose clean label has the highest cross-entropy on a clean network.

    They are atypical, mislabelled already, or close to the decision boundary: a baseline for better strategies.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        surrogate: the network; None: the one that came along with the data, else one that is trained now.

    Raises:
        UserError: an argument is out of its range, or the surrogate does not fit the data.

    Example:
        >>> HighestLoss(per_class=5).per_class
        5
    """

    surrogate: Surrogate | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind("surrogate", self.surrogate, Surrogate, "TrainedSurrogate()", optional=True)

    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        """The cross-entropy of each point."""
        network = surrogate_network(self.surrogate, candidates.training_set, seed)
        scores = surrogate_scores(network, candidates.training_set.inputs[index])
        return cross_entropy(scores.double(), candidates.labels[index])
