"""What attacks did to samples, counted so that the sums over ranks are exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor
from torchmetrics import Metric

from lightning_poison.trainer.ranks import from_all_ranks

__all__ = ["AttackCounts", "AttackedSamples", "interval"]

_DETAILS = ("queries", "zero_gradient", "l2", "survival", "agreement", "transferred")
"""The figures of an attack's result that are averaged over samples."""
_UNIT = 2**20  # figures are summed as multiples of 1 / _UNIT: integers add up to the same in any order


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


class AttackCounts(Metric):
    """Counts of the samples that withstand each of several attacks, and all of them, with integer states.

    Args:
        names: of the attacks.
        radii: number of radii of the sweep; 0 without one.

    Example:
        >>> counts = AttackCounts(["pgd", "fgsm"])
        >>> fooled = torch.tensor([[True, False, False], [False, True, False]])
        >>> counts.update(torch.tensor([True, True, True]), fooled, [{}, {"l2": torch.tensor([0.5, 1.5, torch.nan])}])
        >>> measured = counts.measured("val", 0)
        >>> measured.withstood, measured.each, measured.details["fgsm"]
        (1, {'pgd': 2, 'fgsm': 2}, {'l2': (1.0, 2)})
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    samples: Tensor
    correct: Tensor
    withstood: Tensor
    detail_sums: Tensor
    detail_counts: Tensor
    withstood_at: Tensor
    stochastic: Tensor

    def __init__(self, names: Sequence[str], radii: int = 0) -> None:
        super().__init__()
        self.names, self.radii = list(names), radii
        count, figures = len(self.names), len(_DETAILS)
        shapes = {
            "samples": (),
            "correct": (),
            "withstood": (count + 1,),  # the first is the worst case
            "detail_sums": (count, figures),
            "detail_counts": (count, figures),
            "withstood_at": (count + 1, radii),
            "stochastic": (),  # how many samples were shown to a victim whose scores differ from pass to pass
        }
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        correct: Tensor,
        fooled: Tensor,
        details: Sequence[Mapping[str, Tensor]],
        fooled_at: Tensor | None = None,
        *,
        stochastic: bool = False,
    ) -> None:
        """Add samples.

        Args:
            correct: shape (n,), bool: predicted as the label without an attack.
            fooled: shape (attacks, n), bool; or (1 + attacks, n), where the worst case is given, and comes first.
            details: for each attack, figures by name, each of shape (n,), NaN where a sample has none.
            fooled_at: shape (attacks, radii, n) or (1 + attacks, radii, n), bool: the same at each radius of the sweep.
            stochastic: whether the victim's scores differ from pass to pass.
        """
        self.samples += correct.numel()
        self.correct += correct.sum()
        self.withstood += self._standing(fooled)
        self.stochastic += stochastic * correct.numel()
        for row, figures in enumerate(details):
            for column, name in enumerate(_DETAILS):
                if name in figures:
                    values = figures[name].detach().cpu().double()  # not every accelerator has float64
                    values = values[torch.isfinite(values)]
                    self.detail_sums[row, column] += (values * _UNIT).round().long().sum().to(self.detail_sums.device)
                    self.detail_counts[row, column] += values.numel()
        if fooled_at is not None:
            self.withstood_at += self._standing(fooled_at)

    def _standing(self, fooled: Tensor) -> Tensor:
        """How many stand, in the worst case and under each attack."""
        if len(fooled) == len(self.names):
            fooled = torch.cat([fooled.any(dim=0, keepdim=True), fooled])
        return (~fooled).sum(dim=-1)

    def compute(self) -> Tensor:
        """Return the share that withstands every attack, a float64 scalar."""
        return self.withstood[0].double() / self.samples

    def measured(self, split: str, epoch: int, trainer: Any = None) -> AttackedSamples:
        """The counts over all ranks of ``trainer``, every one of which must call it; None: of this process."""
        total = self._own_counts() if trainer is None else _added(from_all_ranks(trainer, self._own_counts))
        samples, correct = int(total["samples"]), int(total["correct"])
        worst, *each = total["withstood"].tolist()
        sums, counts = total["detail_sums"].tolist(), total["detail_counts"].tolist()
        curve, *curves = total["withstood_at"].tolist() if self.radii else [[]]
        stochastic = bool(total["stochastic"])
        return AttackedSamples(
            split,
            epoch,
            samples,
            correct,
            worst,
            dict(zip(self.names, each, strict=True)),
            {
                name: {
                    figure: (total / _UNIT / count, count)
                    for figure, total, count in zip(_DETAILS, sums[row], counts[row], strict=True)
                    if count
                }
                for row, name in enumerate(self.names)
            },
            tuple(curve),
            {name: tuple(entry) for name, entry in zip(self.names, curves, strict=False)},
            stochastic,
        )

    def _own_counts(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).cpu() for name in self.metric_state}


def _added(counts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([each[name] for each in counts]).sum(dim=0) for name in counts[0]}


def interval(count: int, samples: int) -> tuple[float, float]:
    """The exact binomial interval (Clopper and Pearson, 1934) of a share, at 95 %.

    Example:
        >>> interval(0, 10)[0], round(interval(0, 10)[1], 4) == round(1 - 0.025 ** (1 / 10), 4)
        (0.0, True)
    """
    low, high = binomtest(count, samples).proportion_ci(0.95, method="exact")
    return float(low), float(high)
