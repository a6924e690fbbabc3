"""A surrogate that is trained on the spot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from lightning_poison.ensembles import TrainingRecipe, train_networks
from lightning_poison.functional.checks import check_integer_field, check_kind
from lightning_poison.functional.random_streams import mix_seed
from lightning_poison.nets import SmallNet, net_for
from lightning_poison.nets.building import check_net_maker
from lightning_poison.poisons.surrogates.surrogate import Surrogate, check_surrogate
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["TrainedSurrogate"]

_EPOCHS, _STEPS = 5, 2000


@dataclass(frozen=True)
class TrainedSurrogate(Surrogate):
    """A network that the attacker trains on the clean data.

    Its initial weights belong to a stream of their own: no victim starts from them, whatever its seed.

    Args:
        net: makes the network when called with ``num_classes=K``; None: one for the shape of the inputs, see
            :func:`~lightning_poison.nets.net_for`.
        recipe: how it is trained; None: for at least five epochs and two thousand steps.
        copy: number of the surrogate, for strategies that look through several of one kind.

    Raises:
        UserError: an argument is none of these.
    """

    net: Callable[[int], SmallNet] | Callable[[int], nn.Module] | None = None
    recipe: TrainingRecipe | None = None
    copy: int = 0

    def __post_init__(self) -> None:
        check_net_maker(self.net)
        check_kind("recipe", self.recipe, TrainingRecipe, "TrainingRecipe(epochs=5)", optional=True)
        check_integer_field(self, "copy", minimum=0)

    def network(self, training_set: TrainingSet, seed: int) -> nn.Module:
        """Train it, once for each seed."""

        def train() -> nn.Module:
            own_seed = mix_seed(seed, "surrogate", self.copy)
            recipe = self.recipe or _long_enough(training_set.num_points)
            with training_set.progress("training a surrogate", recipe.epochs) as advance:
                trained = train_networks(
                    self.net or net_for(training_set.inputs.shape[1:]),
                    training_set.inputs,
                    training_set.labels,
                    training_set.num_classes,
                    [own_seed],
                    recipe,
                    order_seed=own_seed,
                    advance=advance,
                )
            return check_surrogate(trained[0].module, training_set)

        return training_set.remembered((self, seed), train)


def _long_enough(points: int) -> TrainingRecipe:
    steps = -(-points // TrainingRecipe().batch_size)
    return TrainingRecipe(epochs=max(_EPOCHS, -(-_STEPS // steps)))
