"""Adversarial paths of a Trainer's training points, all of them or a few once more."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
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
from lightning_poison.attacks.trace import Trace
from lightning_poison.callbacks.paths.table import COLUMNS, PathTable
from lightning_poison.callbacks.target_classes import targets_of
from lightning_poison.callbacks.training_points import clean_labels, fetch
from lightning_poison.functional.random_state import kept_random_state
from lightning_poison.trainer.evaluation import without_logging
from lightning_poison.trainer.progress import progress

__all__ = ["PathTarget", "PathWalker"]

PathTarget = Literal["untargeted", "next", "least_likely"] | int

_BLOCK = 2048  # points that are held in memory at once


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
        parts = [torch.empty((0, len(COLUMNS)), dtype=torch.int64)]
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
