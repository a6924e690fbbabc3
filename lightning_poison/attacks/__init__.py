"""Attacks on the inputs of a network."""

from lightning_poison.attacks.base import Attack, AttackResult
from lightning_poison.attacks.fgsm import FGSM
from lightning_poison.attacks.model import class_scores, frozen_eval
from lightning_poison.attacks.paths import PathLengths, adversarial_paths
from lightning_poison.attacks.pgd import PGD
from lightning_poison.attacks.torchattacks_adapter import from_torchattacks

__all__ = [
    "FGSM",
    "PGD",
    "Attack",
    "AttackResult",
    "PathLengths",
    "adversarial_paths",
    "class_scores",
    "from_torchattacks",
    "frozen_eval",
]
