"""What a report says of an attack and of the accuracy under it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import binomtest

from lightning_poison.attacks import Attack
from lightning_poison.attacks.torchattacks_adapter import TorchAttack
from lightning_poison.functional.pixels import in_grey_levels
from lightning_poison.report import ReportTable

__all__ = ["AttackedSamples", "attack_table", "describe_attack", "history_table", "result_table"]


@dataclass(frozen=True)
class AttackedSamples:
    """One measurement: how many samples were right, and how many were so under attack."""

    split: str
    epoch: int
    samples: int
    correct: int
    withstood: int


def describe_attack(attack: Attack) -> str:
    """An attack in one line.

    Example:
        >>> from lightning_poison.attacks import PGD
        >>> describe_attack(PGD(eps=0.1))
        'PGD, linf, eps 0.1 (25.5/255), 40 steps'
    """
    steps = getattr(attack, "steps", None)
    radius = [attack.norm or "no norm", f"eps {attack.eps:.4g} ({in_grey_levels(attack.eps)})"]
    return ", ".join([attack.name, *(radius if attack.norm else []), *([] if steps is None else [f"{steps} steps"])])


def attack_table(attack: Attack) -> ReportTable:
    """The attack's settings."""
    steps = getattr(attack, "steps", None)
    criterion = "last iterate" if isinstance(attack, TorchAttack) else getattr(attack, "success", "any iterate")
    bounded = math.isfinite(attack.eps)
    columns = ("attack", "norm", "eps, pixel units", "eps, grey levels", "steps", "success")
    eps = (f"{attack.eps:.4g}", in_grey_levels(attack.eps)) if bounded else (None, None)
    return ReportTable("The attack", columns, ((attack.name, attack.norm, *eps, steps, criterion),))


def result_table(latest: list[AttackedSamples]) -> ReportTable:
    """The last measurement of each split, with an exact binomial interval."""
    rows = []
    for entry in latest:
        low, high = binomtest(entry.withstood, entry.samples).proportion_ci(0.95, method="exact")
        interval = f"{100 * low:.1f} to {100 * high:.1f} %"
        rows.append((entry.split, entry.samples, *_accuracies(entry), interval))
    columns = ("data", "samples", "natural accuracy", "adversarial accuracy", "95 % interval (exact)")
    return ReportTable("Last measurement", columns, tuple(rows))


def history_table(history: list[AttackedSamples]) -> ReportTable:
    """One row a measurement."""
    # A reader counts epochs from 1, as the curves do.
    rows = tuple((entry.epoch + 1, entry.split, entry.samples, *_accuracies(entry)) for entry in history)
    columns = ("epoch", "data", "samples", "natural accuracy", "adversarial accuracy")
    return ReportTable("Over the epochs of training", columns, rows)


def _accuracies(entry: AttackedSamples) -> tuple[str, str]:
    return f"{100 * entry.correct / entry.samples:.2f} %", f"{100 * entry.withstood / entry.samples:.2f} %"
