"""Networks that a strategy looks through."""

from lightning_poison.poisons.surrogates.checkpoint import CheckpointSurrogate
from lightning_poison.poisons.surrogates.surrogate import Surrogate, check_output, check_surrogate, surrogate_scores
from lightning_poison.poisons.surrogates.trained import TrainedSurrogate, looks_through_network, surrogate_network

__all__ = [
    "CheckpointSurrogate",
    "Surrogate",
    "TrainedSurrogate",
    "check_output",
    "check_surrogate",
    "looks_through_network",
    "surrogate_network",
    "surrogate_scores",
]
