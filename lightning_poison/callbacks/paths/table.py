"""The lengths of adversarial paths as a table: of one rank, of all, as a file, by class."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.report import LoggedMetric, ReportTable

__all__ = ["COLUMNS", "PathTable"]

COLUMNS = ("index", "label", "target", "length", "reached", "flipped")


@dataclass(frozen=True)
class PathTable:
    """What was measured: one entry a point, sorted by index, on the CPU.

    Attributes:
        index: shape (n,), int64: position in the training set.
        label: shape (n,), int64: the clean label.
        target: shape (n,), int64: the class to reach; -1: any other.
        length: shape (n,), int64, steps.
        reached: shape (n,), bool.
        flipped: shape (n,), bool: whether training used another label.
    """

    index: Tensor
    label: Tensor
    target: Tensor
    length: Tensor
    reached: Tensor
    flipped: Tensor

    @classmethod
    def of(cls, parts: Sequence[Tensor]) -> PathTable:
        """Every rank's rows of ``COLUMNS``, shape (m, 6) each, int64."""
        table = torch.cat(list(parts))
        index, label, target, length, reached, flipped = table[table[:, 0].argsort()].unbind(dim=1)
        return cls(index, label, target, length, reached.bool(), flipped.bool())

    def summary(self, suffix: str = "") -> list[LoggedMetric]:
        """The values to log."""
        lengths = self.length.tolist()
        name = f", {suffix.removeprefix('_')}" if suffix else ""
        return [
            LoggedMetric(
                f"paths/length_median{suffix}",
                f"Path length, median{name}",
                "steps",
                "Median number of steps of an adversarial path: unbounded sign-gradient steps until the prediction "
                "flips.",
                statistics.median(lengths),
                higher_is_better=True,
                kind="paths",
            ),
            LoggedMetric(
                f"paths/length_mean{suffix}",
                f"Path length, mean{name}",
                "steps",
                "Mean number of steps of an adversarial path; one whose prediction never flipped counts with the "
                "limit.",
                statistics.fmean(lengths),
                higher_is_better=True,
                kind="paths",
            ),
            LoggedMetric(
                f"paths/reached{suffix}",
                f"Paths that flip the prediction{name}",
                "share",
                "Share of the points whose prediction flipped within the allowed steps.",
                self.reached.double().mean().item(),
                higher_is_better=False,
                kind="paths",
            ),
        ]

    def as_csv(self) -> str:
        """The content of ``paths.csv``."""
        columns = (self.index, self.label, self.target, self.length, self.reached.long())
        rows = (",".join(map(str, row)) for row in torch.stack(columns, dim=1).tolist())
        return "\n".join([",".join(COLUMNS[:5]), *rows]) + "\n"

    def by_class(self) -> ReportTable:
        """Median and mean length of each class and of all."""
        rows: list[tuple[int | str | float, ...]] = []
        for label in [*torch.unique(self.label).tolist(), None]:
            members = torch.ones_like(self.reached) if label is None else self.label == label
            lengths = self.length[members].tolist()
            share = f"{100 * self.reached[members].double().mean().item():.1f} %"
            name = "all" if label is None else label
            rows.append((name, len(lengths), statistics.median(lengths), round(statistics.fmean(lengths), 2), share))
        columns = ("class", "points", "median", "mean", "reached")
        return ReportTable("Length in steps, by clean class", columns, tuple(rows))

    def class_names(self) -> list[str]:
        """The name of each class with the target that all its points have, where they have one."""
        names = []
        for label in range(int(self.label.max()) + 1):
            targets = torch.unique(self.target[self.label == label]).tolist()
            to = f" to {targets[0]}" if len(targets) == 1 and targets[0] >= 0 else ""
            names.append(f"class {label}{to}")
        return names

    def by_length(self, members: Tensor) -> Tensor:
        """The rows among ``members``, shape (n,), bool, from the shortest path to the longest, int64."""
        rows = members.nonzero().squeeze(1)
        return rows[self.length[rows].argsort(stable=True)]
