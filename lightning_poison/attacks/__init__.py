"""Attacks on the inputs of a network."""

from lightning_poison.attacks.base import Attack, AttackResult
from lightning_poison.attacks.finite_differences import FiniteDifferences
from lightning_poison.attacks.lbfgs import LBFGS
from lightning_poison.attacks.model import class_scores, frozen_eval
from lightning_poison.attacks.outputs import SelectOutput
from lightning_poison.attacks.paths import adversarial_paths, path_trace
from lightning_poison.attacks.pgd import BIM, FGSM, ILCM, PGD
from lightning_poison.attacks.plane import decision_plane
from lightning_poison.attacks.robustness_curve import robustness_curve
from lightning_poison.attacks.stochastic import StochasticVictimWarning, is_stochastic
from lightning_poison.attacks.substitute import SubstituteTransfer
from lightning_poison.attacks.torchattacks_adapter import from_torchattacks
from lightning_poison.attacks.transformations import ExpectationOverTransformations

__all__ = [
    "BIM",
    "FGSM",
    "ILCM",
    "LBFGS",
    "PGD",
    "Attack",
    "AttackResult",
    "ExpectationOverTransformations",
    "FiniteDifferences",
    "SelectOutput",
    "StochasticVictimWarning",
    "SubstituteTransfer",
    "adversarial_paths",
    "class_scores",
    "decision_plane",
    "from_torchattacks",
    "frozen_eval",
    "is_stochastic",
    "path_trace",
    "robustness_curve",
]
