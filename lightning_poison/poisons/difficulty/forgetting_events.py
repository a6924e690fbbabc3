"""The points that a training run forgets most often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_poison.ensembles import TrainedNetwork, TrainingRecipe, train_networks
from lightning_poison.errors import UserError
from lightning_poison.functional.buckets import order_ranks
from lightning_poison.functional.checks import check_integer_field, check_kind
from lightning_poison.functional.forgetting import forgetting_events
from lightning_poison.functional.random_streams import mix_seed
from lightning_poison.nets import SmallNet, net_for
from lightning_poison.nets.building import check_net_maker
from lightning_poison.poisons.candidates import Candidates
from lightning_poison.poisons.ranking import ScoreSelector
from lightning_poison.poisons.surrogates import check_surrogate
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["ForgettingEvents"]


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
