"""Surrogates that are trained on the spot, which one a strategy takes, and what its last layer sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_poison.attacks import class_scores
from lightning_poison.ensembles import TrainingRecipe, train_networks
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer_field, check_kind
from lightning_poison.functional.random_streams import mix_seed
from lightning_poison.nets import SmallNet, net_for
from lightning_poison.nets.building import check_net_maker, in_parts
from lightning_poison.poisons.surrogates.surrogate import Surrogate, check_surrogate
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["LastLayer", "TrainedSurrogate", "looks_through_network", "penultimate_features", "surrogate_network"]

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


def surrogate_network(surrogate: Surrogate | None, training_set: TrainingSet, seed: int) -> nn.Module:
    """The named surrogate's network, else the one that comes with the data, else one that is trained now.

    Args:
        surrogate: what the user named; None: nothing.
        training_set: the clean data.
        seed: of a surrogate's training.

    Returns:
        maps (N, ...) to logits (N, K); checked against the data.

    Raises:
        UserError: it does not fit the data or has not learnt them.
    """
    if surrogate is not None:
        return surrogate.network(training_set, seed)
    if training_set.network is not None:
        network = training_set.network
        return training_set.remembered("checked network", lambda: check_surrogate(network, training_set, "network"))
    return TrainedSurrogate().network(training_set, seed)


def looks_through_network(rule: Any) -> bool:
    """Whether a strategy, or a part of it, takes the network that comes with the data: its ``surrogate`` is None.

    Example:
        >>> from lightning_poison.poisons import HighestLoss, LabelFlips, Medoids
        >>> looks_through_network(LabelFlips(HighestLoss())), looks_through_network(LabelFlips(Medoids()))
        (True, False)
    """
    if not dataclasses.is_dataclass(rule):
        return False
    values = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)}
    if "surrogate" in values and values["surrogate"] is None:
        return True
    return any(looks_through_network(value) for value in values.values())


# --- last layer -------------------------------------------------------------------------------------------------------


def penultimate_features(network: nn.Module, inputs: Tensor) -> Tensor:
    """The inputs of the linear layer that gives the class scores.

    Args:
        network: maps (N, ...) to logits (N, K) by a linear layer at its end.
        inputs: shape (n, ...), float.

    Returns:
        shape (n, d), float, on the CPU, computed in parts on the network's device.

    Raises:
        UserError: the linear layer that runs last does not give one number a class. What is done to its numbers
            afterwards, such as a softmax, does not matter.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(2, 3))
        >>> penultimate_features(network, torch.tensor([[[-1.0, 2.0]]]))
        tensor([[0., 2.]])
    """

    def seen(part: Tensor) -> Tensor:
        with _linear_passes(network) as passes:
            scores = class_scores(network, part)
        if not passes or passes[-1].output.shape != scores.shape:
            raise UserError(
                f"the network must end in a linear layer, got {type(network).__name__}, which does not; "
                "use InputSpace or PCASpace"
            )
        return passes[-1].input.flatten(1)

    return in_parts(network, inputs, seen)


class LastLayer:
    """What the last linear layer of a network sees, and the network with another last layer.

    Args:
        network: its output is the output of its last ``nn.Linear``.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> last = LastLayer(network)
        >>> last.features(torch.rand(5, 1, 2, 2)).shape, last.replaced(torch.zeros(7, 3), torch.zeros(7)) is network
        (torch.Size([5, 3]), False)
    """

    def __init__(self, network: nn.Module) -> None:
        linear = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
        if not linear:
            raise UserError(
                f"the network must end in a linear layer, got {type(network).__name__} without one; use weights=network"
            )
        self.network = network
        self._name, self._head = linear[-1]

    def features(self, inputs: Tensor) -> Tensor:
        """The inputs of the last layer.

        Args:
            inputs: shape (n, ...).

        Returns:
            shape (n, d), float32, on the CPU.

        Raises:
            UserError: the network does something after its last linear layer.
        """
        return in_parts(self.network, inputs, self._caught)

    def replaced(self, weight: Tensor, bias: Tensor) -> nn.Module:
        """The network with other weights, shape (K, d), and biases, shape (K,), in its last layer."""
        return _Replaced(self.network, self._name, weight.to(self._head.weight), bias.to(self._head.weight))

    def _caught(self, inputs: Tensor) -> Tensor:
        with _linear_passes(self.network) as passes:
            output = self.network(inputs)
        own = [each for each in passes if each.layer is self._head]
        if len(own) != 1 or own[0].input.ndim != 2 or not torch.equal(own[0].output, output):
            raise UserError(
                f"the output of the network {type(self.network).__name__} must be that of its last linear layer, "
                "got something that is computed from it; use weights=network"
            )
        return own[0].input


class _Pass(NamedTuple):
    """One time that a linear layer was run."""

    layer: nn.Module
    input: Tensor
    output: Tensor


@contextmanager
def _linear_passes(network: nn.Module) -> Iterator[list[_Pass]]:
    """All passes through linear layers inside, in their order."""
    passes: list[_Pass] = []
    hooks = [
        layer.register_forward_hook(lambda layer, given, made: passes.append(_Pass(layer, given[0], made)))
        for layer in network.modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


class _Replaced(nn.Module):
    def __init__(self, network: nn.Module, name: str, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.network = network
        prefix = f"{name}." if name else ""
        self._other = {f"{prefix}weight": weight, f"{prefix}bias": bias}

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.network, self._other, (inputs,))
        return logits
