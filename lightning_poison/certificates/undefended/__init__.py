"""What label flips do to a learner without any defence."""

from lightning_poison.certificates.undefended.baseline import AttackedPoints, FlipAttacks, UndefendedLogistic
from lightning_poison.certificates.undefended.flip_attack import distance_attack, influence_attack, reverse_pass
from lightning_poison.certificates.undefended.logistic import LogisticFits

__all__ = [
    "AttackedPoints",
    "FlipAttacks",
    "LogisticFits",
    "UndefendedLogistic",
    "distance_attack",
    "influence_attack",
    "reverse_pass",
]
