"""The attacker's own network, which stands in for the victim's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_poison.attacks import class_scores, frozen_eval
from lightning_poison.attacks.outputs import SelectOutput
from lightning_poison.errors import UserError
from lightning_poison.nets.building import device_of, in_parts
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["Surrogate", "check_output", "check_surrogate", "surrogate_scores"]

_CHECKED = 2000
_ERRORS = 3  # standard errors above chance
_REMEDIES = {
    "surrogate": "name a network for this data",
    "network": "let its forward take a batch of the training inputs alone, or name a surrogate",
}


class Surrogate(ABC):
    """A rule that says which network a strategy looks through.

    It is a frozen dataclass, so that it records itself in the flip list.
    """

    @abstractmethod
    def network(self, training_set: TrainingSet, seed: int) -> nn.Module:
        """A network trained on the clean data.

        Args:
            training_set: the clean data.
            seed: of what is random; networks of one seed are equal.

        Returns:
            maps (N, ...) to logits (N, K); in eval mode, its weights frozen.

        Raises:
            UserError: there is no such network, or it does not fit the data.
        """


def surrogate_scores(network: nn.Module, inputs: Tensor) -> Tensor:
    """Logits of all inputs, (n, K), on the CPU, computed in parts on the network's device."""
    return in_parts(network, inputs, partial(class_scores, network))


def check_output(network: nn.Module, inputs: Tensor) -> None:
    """Refuse a network that came along, before it is trained, if it gives something else than class scores.

    Whatever else it says is for later: somebody's network may not be ready yet.

    Args:
        network: it may be untrained; its modes and flags stay as they are.
        inputs: shape (n, ...): a few.

    Raises:
        UserError: its output is no tensor of shape (n, K), or lacks the item that holds it.

    Example:
        >>> check_output(nn.Linear(2, 3), torch.rand(1, 2))
    """
    if any(is_lazy(parameter) for parameter in network.parameters()):
        return
    try:
        with frozen_eval(network), torch.no_grad():
            output = network(inputs.to(device_of(network)))
            scores = output.nan_to_num() if isinstance(output, Tensor) else output
            class_scores(lambda _: scores, inputs)
    except UserError as error:
        raise UserError(_unusable(network, "network", error)) from error
    except Exception:  # noqa: BLE001  # see above: it is asked again once it is trained
        return


def check_surrogate(network: nn.Module, training_set: TrainingSet, called: str = "surrogate") -> nn.Module:
    """Return the network if it has learnt the clean data.

    The share of (at most 2000) training labels that it gets right must exceed that of the largest class, c, by three
    standard errors of a binomial share, 3 sqrt(c (1 - c) / n); where points are few, by a third of 1 - c. That refuses
    what guesses. An untrained network may pass if it happens to tell some classes apart.

    Args:
        network: maps (N, ...) to logits (N, K).
        training_set: the clean data.
        called: in messages: "surrogate", or "network" for one that came along and that nobody has named.

    Raises:
        UserError: it cannot take the inputs, has another number of classes, or is no better than guessing.
    """
    points = training_set.num_points
    sample = torch.linspace(0, points - 1, min(points, _CHECKED), dtype=torch.float64).long()
    labels = training_set.labels[sample]
    inputs = training_set.inputs[sample]
    try:
        scores = surrogate_scores(network, inputs)
    except UserError as error:
        raise UserError(_unusable(network, called, error)) from error
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
        shape, reason = tuple(inputs.shape[1:]), str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"the {called} {_name(network)} cannot take inputs of shape {shape} ({reason}); {_REMEDIES[called]}"
        ) from error
    if scores.shape[1] < training_set.num_classes:
        raise UserError(
            f"the {called} must have an output for each of the {training_set.num_classes} classes, got "
            f"{scores.shape[1]}; train it on this data"
        )
    accuracy = float((scores.argmax(dim=1) == labels).double().mean())
    chance = float(labels.bincount().max()) / len(labels)
    bar = chance + min(_ERRORS * (chance * (1 - chance) / len(labels)) ** 0.5, (1 - chance) / 3)
    if training_set.num_classes > 1 and (accuracy <= chance or accuracy < bar):
        raise UserError(
            f"the {called} gets {accuracy:.1%} of the clean training labels right, no more than guessing "
            f"({chance:.1%}; it needs {bar:.1%}); train it (more epochs), or check that it belongs to this data"
        )
    return network


def _unusable(network: nn.Module, called: str, error: UserError) -> str:
    return f"the {called} {_name(network)} cannot be used: {error}"


def _name(network: nn.Module) -> str:
    return type(network.model if isinstance(network, SelectOutput) else network).__name__
