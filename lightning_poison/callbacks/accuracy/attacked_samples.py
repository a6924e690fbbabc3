"""One measurement of accuracy under attack, in plain Python so that it travels through checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scipy.stats import binomtest

__all__ = ["AttackedSamples", "interval"]


@dataclass(frozen=True)
class AttackedSamples:
    """How many samples were right, and how many were so under attack.

    Attributes:
        split: "val" or "test".
        epoch: counted from 0.
        samples: how many were attacked.
        correct: how many are predicted as their label without an attack.
        withstood: how many withstood every attack.
        each: by attack, how many withstood it.
        details: by attack, then by the name of the figure (see :class:`~lightning_poison.attacks.AttackResult`), its
            mean over the samples that have one, and how many have one.
        curve: how many samples withstand every attack at each radius of the sweep; empty without one.
        curves: the same by attack.
        stochastic: whether the victim's scores differ from pass to pass, so that final examples were evaluated afresh.
    """

    split: str
    epoch: int
    samples: int
    correct: int
    withstood: int
    each: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Mapping[str, tuple[float, int]]] = field(default_factory=dict)
    curve: tuple[int, ...] = ()
    curves: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    stochastic: bool = False


def interval(count: int, samples: int) -> tuple[float, float]:
    """The exact binomial interval (Clopper and Pearson, 1934) of a share, at 95 %.

    Example:
        >>> interval(0, 10)[0], round(interval(0, 10)[1], 4) == round(1 - 0.025 ** (1 / 10), 4)
        (0.0, True)
    """
    low, high = binomtest(count, samples).proportion_ci(0.95, method="exact")
    return float(low), float(high)
