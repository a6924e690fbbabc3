"""The attacker's own network, which stands in for the victim's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial

import torch
from torch import Tensor, nn

from lightning_poison.attacks import class_scores
from lightning_poison.errors import UserError
from lightning_poison.poisons.surrogates.running import in_parts
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["Surrogate", "check_surrogate", "surrogate_scores"]

_CHECKED = 2000


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


def check_surrogate(network: nn.Module, training_set: TrainingSet) -> nn.Module:
    """Return the network if it has learnt the clean data.

    Raises:
        UserError: it cannot take the inputs, has another number of classes, or is no better than guessing.
    """
    sample = torch.linspace(0, training_set.num_points - 1, min(training_set.num_points, _CHECKED)).long()
    labels = training_set.labels[sample]
    try:
        scores = surrogate_scores(network, training_set.inputs[sample])
    except (RuntimeError, ValueError) as error:
        shape, reason = tuple(training_set.inputs.shape[1:]), str(error).partition("\n")[0]
        raise UserError(
            f"the surrogate {type(network).__name__} cannot take inputs of shape {shape} ({reason}); "
            "name a network for this data"
        ) from error
    if scores.shape[1] < training_set.num_classes:
        raise UserError(
            f"the surrogate must have an output for each of the {training_set.num_classes} classes, got "
            f"{scores.shape[1]}; train it on this data"
        )
    accuracy = float((scores.argmax(dim=1) == labels).double().mean())
    chance = float(labels.bincount().max()) / len(labels)
    if training_set.num_classes > 1 and accuracy <= chance:
        raise UserError(
            f"the surrogate gets {accuracy:.1%} of the clean training labels right, no more than guessing "
            f"({chance:.1%}); train it (more epochs), or check that it belongs to this data"
        )
    return network
