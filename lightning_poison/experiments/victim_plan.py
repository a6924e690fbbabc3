"""A kind of victim of an experiment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from lightning_poison.ensembles import TrainingRecipe
from lightning_poison.errors import UserError
from lightning_poison.nets import SmallNet

__all__ = ["VictimPlan"]


@dataclass(frozen=True)
class VictimPlan:
    """A network and how it is trained.

    Args:
        net: makes the network when called with ``num_classes=K``; it takes inputs in [0, 1].
        recipe: how it is trained; ``extra_epochs`` are for runs that have not fitted their flips by then.

    Raises:
        UserError: ``net`` makes no network, or the recipe is none.

    Example:
        >>> from functools import partial
        >>> from lightning_poison.nets import MLP
        >>> VictimPlan(partial(MLP, image_size=8), TrainingRecipe(epochs=30)).recipe.epochs
        30
    """

    net: Callable[[int], SmallNet] | Callable[[int], nn.Module]
    recipe: TrainingRecipe = field(default_factory=TrainingRecipe)

    def __post_init__(self) -> None:
        if isinstance(self.net, nn.Module):
            raise UserError(
                f"net must be a function that makes a network, got a {type(self.net).__name__}; "
                "each victim needs one of its own: pass its class or a function"
            )
        if not callable(self.net):
            raise UserError(f"net must be a class or a function that makes a network, got {self.net!r}")
        if not isinstance(self.recipe, TrainingRecipe):
            raise UserError(f"recipe must be a TrainingRecipe, got {self.recipe!r}; write TrainingRecipe(epochs=30)")
