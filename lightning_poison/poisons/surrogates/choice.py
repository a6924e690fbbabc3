"""Which network a strategy looks through when its user named one, or none."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from lightning_poison.poisons.surrogates.surrogate import Surrogate, check_surrogate
from lightning_poison.poisons.surrogates.trained import TrainedSurrogate
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["looks_through_network", "surrogate_network"]


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
