"""Lengths of the adversarial paths of training points."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from lightning_poison.attacks import adversarial_paths
from lightning_poison.callbacks.base import Measurement
from lightning_poison.callbacks.progress import progress
from lightning_poison.callbacks.training_points import (
    clean_labels,
    clean_num_classes,
    drawn_positions,
    fetch,
    training_set,
)
from lightning_poison.datamodules import report_folder
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_integer, check_number
from lightning_poison.functional.files import write_atomically
from lightning_poison.functional.pixels import Pixels
from lightning_poison.functional.random_state import kept_random_state
from lightning_poison.report import ReportFigure, ReportTable, Section

__all__ = ["AdversarialPaths"]

_BLOCK = 2048  # points that are held in memory at once
_EXAMPLES = 4  # pictures of the closest and of the farthest points of a class
_MOST_CLASSES = 20  # rows of the picture


@dataclass(frozen=True)
class _Paths:
    """What was measured: one entry a point, sorted by index."""

    index: Tensor
    label: Tensor
    target: Tensor
    length: Tensor
    reached: Tensor
    flipped: Tensor

    def summary(self) -> dict[str, float]:
        lengths = self.length.tolist()
        return {
            "paths/length_median": statistics.median(lengths),
            "paths/length_mean": statistics.fmean(lengths),
            "paths/reached": self.reached.double().mean().item(),
        }


class AdversarialPaths(Measurement):
    """How many sign-gradient steps the decision boundary is away from training points.

    Paths start at the points as the training set gives them (without weights ever moving) and lead away from the
    clean class: where a label was flipped, the clean label counts. Logs ``paths/length_median``,
    ``paths/length_mean`` (a path that doesn't end within ``max_steps`` counts as ``max_steps``) and
    ``paths/reached``, the share that ends; writes ``LOG_DIR/report/paths.csv`` (index in the training set, clean
    label, target or -1, length, reached as 1 or 0).

    The points are drawn from the whole training set with a fixed seed, so that sorted data are covered evenly and
    every epoch, run and number of ranks measures the same ones. Random augmentation of the training set draws from
    streams of its own, so training goes on undisturbed.

    Args:
        target: "untargeted", "next" (the cyclically next class) or a class, whose own points are left out.
        step: length of a step in pixel units.
        max_steps: the longest path that is followed.
        clip: keep paths within [0, 1]; they get longer.
        max_samples: how many points; None: all.
        every_n_epochs: measure after every n-th epoch; None: only after the last.

    Raises:
        UserError: an argument is out of its range, or the training data can't be read by index.

    Example:
        >>> AdversarialPaths("next", max_samples=1000).target
        'next'
    """

    def __init__(
        self,
        target: Literal["untargeted", "next"] | int = "untargeted",
        step: Pixels = 0.01,
        max_steps: int = 200,
        clip: bool = False,
        max_samples: int | None = 10_000,
        every_n_epochs: int | None = None,
    ) -> None:
        super().__init__(every_n_epochs, max_samples)
        if isinstance(target, str):
            check_choice("target", target, ("untargeted", "next"))
        else:
            check_integer("target", target, minimum=0, remedy="write untargeted, next or a class number")
        self.target = target
        self.step = check_number("step", float(Pixels(step)), minimum=1e-6, remedy="steps of 0.01 are usual")
        self.max_steps = check_integer("max_steps", max_steps, minimum=1)
        self.clip = clip
        self.history: list[dict[str, float]] = []
        self._paths: _Paths | None = None
        self._pictures: tuple[Tensor, list[str], list[str]] | None = None

    @property
    def state_key(self) -> str:
        """Tells the states of several of these callbacks apart in a checkpoint."""
        return f"{type(self).__qualname__}(target={self.target!r}, step={self.step!r}, clip={self.clip!r})"

    def state_dict(self) -> dict[str, Any]:
        """The history, in plain Python."""
        return {"history": list(self.history)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the history."""
        self.history = list(state_dict["history"])

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse a second one, which would write the same file."""
        if sum(isinstance(callback, AdversarialPaths) for callback in trainer.callbacks) > 1:
            raise UserError("callbacks may hold one AdversarialPaths, got several; measure other targets in other runs")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse training data without indices before the first step."""
        training_set(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Follow the paths, log their lengths, write ``paths.csv``."""
        if self.is_due(trainer):
            self.log_values(trainer, pl_module, self._measure(trainer, pl_module, trainer.current_epoch))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure now if the last epoch came unannounced."""
        if self.is_overdue(trainer):
            self.log_at_end(trainer, self._measure(trainer, pl_module, trainer.current_epoch - 1))

    def report_sections(self) -> list[Section]:
        """Lengths by class, their histogram, the closest and farthest points."""
        if self._paths is None:
            return []
        from lightning_poison import plots

        paths = self._paths
        histogram = plots.path_length_histogram(paths.length, paths.label, reached=paths.reached)
        caption = "Sign-gradient steps until the prediction flips, by clean class."
        figures = [ReportFigure.from_figure("path-lengths", caption, histogram)]
        if self._pictures is not None:
            images, titles, rows = self._pictures
            grid = plots.image_grid(images, titles, row_labels=rows)
            caption = (
                "For each class the closest points (left half) and the farthest (right half): "
                "index in the training set and length of the path."
            )
            figures.append(ReportFigure.from_figure("path-examples", caption, grid))
        return [Section("Adversarial paths", self._in_words(paths), (_class_table(paths),), tuple(figures))]

    def _measure(self, trainer: Any, pl_module: Any, epoch: int) -> dict[str, float]:
        """The values to log; none where every point was left out."""
        self.note_measured(trainer)
        dataset = training_set(trainer)
        positions = drawn_positions(len(dataset), self.max_samples)
        mine = positions[trainer.global_rank :: trainer.world_size]
        paths = _gathered(trainer, lambda: self._follow(trainer, pl_module, dataset, mine))
        folder = report_folder(trainer)
        if not len(paths.index):
            rank_zero_warn(f"no adversarial path was measured: every point drawn belongs to the target {self.target}")
            return {}
        self._paths = paths
        self.history.append({"epoch": epoch, **paths.summary()})
        if trainer.is_global_zero:
            self._pictures = _pictures(trainer, pl_module, dataset, paths)
            if folder is not None:
                write_atomically(folder / "paths.csv", _as_csv(paths))
        return paths.summary()

    def _in_words(self, paths: _Paths) -> tuple[str, ...]:
        whither = {"untargeted": "out of their class", "next": "to the cyclically next class"}
        aim = whither.get(str(self.target), f"to class {self.target}")
        box = "kept within" if self.clip else "free to leave"
        what = (
            f"Paths of {len(paths.index):,} training points {aim}: steps of {self.step:g} along the sign of the "
            f"gradient, {box} [0, 1], at most {self.max_steps}. A short path means that the boundary is near."
        )
        count = int(paths.flipped.sum())
        if not count:
            return (what,)
        return what, f"{count:,} of these points carry a flipped label; their paths lead away from the clean class."

    def _follow(self, trainer: Any, pl_module: Any, dataset: Any, positions: Tensor) -> Tensor:
        """Columns index, label, target, length, reached, flipped of this rank's points, int64."""
        parts = [torch.empty((0, 6), dtype=torch.int64)]
        precision = trainer.precision_plugin.forward_context()
        shown = progress(trainer, "adversarial paths", len(positions))
        with kept_random_state(0, pl_module.device), shown as advance, precision:
            for block in torch.split(positions, _BLOCK) if len(positions) else ():
                inputs, labels = fetch(trainer, pl_module, dataset, block)
                clean = clean_labels(dataset, block, labels.cpu())
                targets = self._targets(trainer, pl_module, inputs, clean)
                keep = torch.ones_like(clean, dtype=torch.bool) if targets is None else targets != clean
                advance(int((~keep).sum()))
                result = adversarial_paths(
                    pl_module,
                    inputs[keep.to(inputs.device)],
                    clean[keep].to(inputs.device),
                    None if targets is None else targets[keep].to(inputs.device),
                    step=self.step,
                    max_steps=self.max_steps,
                    clip=self.clip,
                    advance=advance,
                )
                flipped = (clean != labels.cpu())[keep].long()
                columns = (block[keep], clean[keep], result.target, result.length, result.reached.long(), flipped)
                parts.append(torch.stack(columns, dim=1))
        return torch.cat(parts)

    def _targets(self, trainer: Any, pl_module: Any, inputs: Tensor, labels: Tensor) -> Tensor | None:
        if self.target == "untargeted":
            return None
        if isinstance(self.target, int):
            return torch.full_like(labels, self.target)
        return (labels + 1) % clean_num_classes(trainer, pl_module, inputs)


def _gathered(trainer: Any, follow: Any) -> _Paths:
    """Every rank's rows, sorted by index; a mistake on one rank is raised on all, so that none waits for ever."""
    rows, mistake = torch.empty((0, 6), dtype=torch.int64), None
    try:
        rows = follow()
    except UserError as error:
        mistake = str(error)
    parts: list[Any] = [(rows, mistake)]
    if trainer.world_size > 1:
        parts = [None] * trainer.world_size
        torch.distributed.all_gather_object(parts, (rows, mistake))
    mistake = next((message for _, message in parts if message is not None), None)
    if mistake is not None:
        raise UserError(mistake)
    table = torch.cat([part for part, _ in parts])
    table = table[table[:, 0].argsort()]
    index, label, target, length, reached, flipped = table.unbind(dim=1)
    return _Paths(index, label, target, length, reached.bool(), flipped.bool())


def _as_csv(paths: _Paths) -> str:
    columns = (paths.index, paths.label, paths.target, paths.length, paths.reached.long())
    rows = (",".join(map(str, row)) for row in torch.stack(columns, dim=1).tolist())
    return "\n".join(["index,label,target,length,reached", *rows]) + "\n"


def _class_table(paths: _Paths) -> ReportTable:
    rows: list[tuple[int | str | float, ...]] = []
    for label in [*torch.unique(paths.label).tolist(), None]:
        members = torch.ones_like(paths.reached) if label is None else paths.label == label
        lengths = paths.length[members].tolist()
        share = f"{100 * paths.reached[members].double().mean().item():.1f} %"
        name = "all" if label is None else label
        rows.append((name, len(lengths), statistics.median(lengths), round(statistics.fmean(lengths), 2), share))
    return ReportTable("Length in steps, by clean class", ("class", "points", "median", "mean", "reached"), tuple(rows))


def _pictures(trainer: Any, pl_module: Any, dataset: Any, paths: _Paths) -> tuple[Tensor, list[str], list[str]] | None:
    """Images, titles and row names of the closest and farthest points of each class; None if they're no images."""
    chosen: list[int] = []
    rows: list[str] = []
    for label in torch.unique(paths.label).tolist()[:_MOST_CLASSES]:
        members = ((paths.label == label) & paths.reached).nonzero().squeeze(1)
        if len(members) < 2 * _EXAMPLES:
            continue
        order = members[paths.length[members].argsort(stable=True)].tolist()
        chosen += order[:_EXAMPLES] + order[-_EXAMPLES:]
        rows.append(f"class {label}")
    if not chosen:
        return None
    images, _ = fetch(trainer, pl_module, dataset, paths.index[chosen])
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        return None
    titles = [f"#{int(paths.index[row])}: {int(paths.length[row])}" for row in chosen]
    return images.float().cpu(), titles, rows
