"""What label flips do to a learner without any defence."""

from lightning_poison.certificates.undefended.baseline import (
    AttackedPoints,
    FlipAttacks,
    LogisticFits,
    UndefendedLogistic,
    distance_attack,
    influence_attack,
    reverse_pass,
)

__all__ = [
    "AttackedPoints",
    "FlipAttacks",
    "LogisticFits",
    "UndefendedLogistic",
    "distance_attack",
    "influence_attack",
    "reverse_pass",
]
