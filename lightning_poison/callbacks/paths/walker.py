"""Adversarial paths of training points: followed, and tabulated over ranks and classes."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_poison.attacks import (
    StochasticVictimWarning,
    adversarial_paths,
    class_scores,
    frozen_eval,
    path_trace,
)
from lightning_poison.attacks.model import check_samples
from lightning_poison.attacks.paths import Trace
from lightning_poison.callbacks.target_classes import targets_of
from lightning_poison.callbacks.training_points import clean_labels, fetch
from lightning_poison.functional.random_streams import kept_random_state
from lightning_poison.report import LoggedMetric, ReportTable
from lightning_poison.trainer.evaluation import without_logging
from lightning_poison.trainer.progress import progress

__all__ = ["PathTable", "PathTarget", "PathWalker"]

_COLUMNS = ("index", "label", "target", "length", "reached", "flipped")
_BLOCK = 2048  # points that are held in memory at once
PathTarget = Literal["untargeted", "next", "least_likely"] | int


# --- lengths as a table -----------------------------------------------------------------------------------------------


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
        """Every rank's rows of ``_COLUMNS``, shape (m, 6) each, int64."""
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
        return "\n".join([",".join(_COLUMNS[:5]), *rows]) + "\n"

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


# --- following paths --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PathWalker:
    """Follows paths of training points from their clean labels, without a trace on the training.

    Args:
        trainer: that fits.
        pl_module: the victim.
        model: what gives its class scores.
        loader: over the training set.
        target: "untargeted", "next", "least_likely" or a class.
        step: length of a step in pixel units.
        max_steps: the longest path that is followed.
        clip: keep paths within [0, 1].
    """

    trainer: Any
    pl_module: Any
    model: nn.Module
    loader: Any
    target: PathTarget
    step: float
    max_steps: int
    clip: bool

    def try_out(self, positions: Tensor) -> None:
        """Go a step from a few points, to no other end than finding mistakes early.

        Args:
            positions: of the points, shape (m,), int64.

        Raises:
            UserError: the inputs, the target or the model's output are unusable; broken pixels are left to the training
                to find.
        """
        if len(positions):
            with self.undisturbed():
                inputs, labels = self.fetch(positions)
                inputs = check_samples(inputs.nan_to_num(nan=0, posinf=0, neginf=0), labels, None)
                self.probabilities(inputs)
                targets = self._targets(inputs, labels.cpu())
                if targets is None:  # with a target some points may be of that class
                    adversarial_paths(self.model, inputs, labels.long(), None, **{**self._settings, "max_steps": 1})

    def follow(self, positions: Tensor) -> tuple[Tensor, bool]:
        """The rows of a :class:`PathTable` for points of the training set, shape (m, 6), int64; whether by a majority.

        Points whose target is their own class are left out. Where the victim's scores differ from pass to pass, a
        path ends where most of several passes find it ended.
        """
        stochastic = False
        parts = [torch.empty((0, len(_COLUMNS)), dtype=torch.int64)]
        shown = progress(self.trainer, "adversarial paths", len(positions))
        with self.undisturbed(), shown as advance:
            for block in torch.split(positions, _BLOCK) if len(positions) else ():
                inputs, labels = self.fetch(block)
                clean = clean_labels(self.loader.dataset, block, labels.cpu())
                targets = self._targets(inputs, clean)
                keep = torch.ones_like(clean, dtype=torch.bool) if targets is None else targets != clean
                advance(int((~keep).sum()))
                result = adversarial_paths(
                    self.model,
                    inputs[keep.to(inputs.device)],
                    clean[keep].to(inputs.device),
                    None if targets is None else targets[keep].to(inputs.device),
                    **self._settings,
                    advance=advance,
                )
                stochastic |= result.stochastic
                flipped = (clean != labels.cpu())[keep].long()
                columns = (block[keep], clean[keep], result.target, result.length, result.reached.long(), flipped)
                parts.append(torch.stack(columns, dim=1))
        return torch.cat(parts), stochastic

    def ends(self, table: PathTable, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Where the paths of a few rows of ``table`` start and end, shape (m, ...) each, on the CPU."""
        inputs, labels, targets = self._again(table, rows)
        found = adversarial_paths(self.model, inputs, labels, targets, **self._settings, keep_ends=True)
        return inputs.cpu(), torch.empty(0) if found.ends is None else found.ends

    def trace(self, table: PathTable, row: int) -> Trace:
        """The whole path of one row of ``table``."""
        return path_trace(self.model, *self._again(table, torch.tensor([row])), **self._settings)[0]

    def fetch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and labels at ``positions`` of the training set, on the victim's device."""
        return fetch(self.trainer, self.pl_module, self.loader, positions)

    def probabilities(self, inputs: Tensor) -> Tensor:
        """Softmax of the class scores, shape (n, K), on the CPU."""
        with frozen_eval(self.model), torch.no_grad():
            scores = class_scores(self.model, inputs.to(self.pl_module.device).clone())
        return scores.float().softmax(dim=1).cpu()

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Random streams of its own, and the precision in which the victim is trained; a stochastic one is told of."""
        with (
            kept_random_state(0, self.pl_module.device),
            self.trainer.precision_plugin.forward_context(),
            without_logging(self.pl_module),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", StochasticVictimWarning)  # said once, not of each block of points
            yield

    @property
    def _settings(self) -> dict[str, Any]:
        return {"step": self.step, "max_steps": self.max_steps, "clip": self.clip}

    def _again(self, table: PathTable, rows: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Inputs, labels and targets of rows of ``table``."""
        inputs, _ = self.fetch(table.index[rows])
        targets = None if self.target == "untargeted" else table.target[rows].to(inputs.device)
        return inputs, table.label[rows].to(inputs.device), targets

    def _targets(self, inputs: Tensor, labels: Tensor) -> Tensor | None:
        """The class that each path is to reach, on the CPU."""
        rule = None if self.target == "untargeted" else self.target
        targets = targets_of(rule, self.trainer, self.model, inputs, labels.to(inputs.device))
        return None if targets is None else targets.cpu()
