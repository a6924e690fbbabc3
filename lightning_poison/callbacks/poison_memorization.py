"""How many of the flipped labels the victim has learnt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from lightning_poison.attacks import class_scores, frozen_eval
from lightning_poison.callbacks.base import Measurement
from lightning_poison.datamodules import PoisonedDataset, find_poisoned_dataset
from lightning_poison.functional.checks import check_integer
from lightning_poison.functional.random_state import kept_random_state
from lightning_poison.poisons import PoisonList
from lightning_poison.report import ReportFigure, ReportTable, Section
from lightning_poison.trainer.batches import inputs_and_labels
from lightning_poison.trainer.evaluation import on_device
from lightning_poison.trainer.progress import progress
from lightning_poison.trainer.ranks import from_all_ranks

__all__ = ["PoisonMemorization"]

_PICTURES = 16
_WARNING = (
    "Numbers of a victim that did not memorise its flips understate what the flips can do: train longer, let the "
    "learning rate decay, and compare only runs that memorised equally much."
)


class PoisonMemorization(Measurement):
    """Measures which flipped training points the victim predicts as their flipped, and which as their clean label.

    Logs at the end of training epochs, with the victim in eval mode:

    - ``poison/fitted``: share of the flipped points predicted as the flipped label, in [0, 1];
    - ``poison/clean``: share still predicted as the clean label, in [0, 1];
    - ``poison/count``: number of flipped points measured. Without flips it is 0, and the shares are not logged.

    Every rank predicts every flipped point, and the numbers are rank zero's.

    Args:
        every_n_epochs: measure after every n-th epoch and after the last one; None: only after the last.
        max_samples: measure at most so many flipped points (the first ones); None: all.
        batch_size: points predicted at once.

    Raises:
        UserError: an argument is out of range.
    """

    def __init__(self, every_n_epochs: int | None = 1, max_samples: int | None = None, batch_size: int = 256) -> None:
        super().__init__(every_n_epochs, max_samples)
        self.batch_size = check_integer("batch_size", batch_size, minimum=1)
        self.history: list[dict[str, float]] = []
        self._flips: PoisonList | None = None
        self._predictions: Tensor | None = None
        self._pictures: Tensor | None = None

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Predict the flipped points and log the shares."""
        if self.is_due(trainer):
            self.log_values(trainer, pl_module, self._measure(trainer, pl_module, trainer.current_epoch))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure now if the last epoch came unannounced."""
        if self.is_overdue(trainer):
            self.log_at_end(trainer, self._measure(trainer, pl_module, trainer.current_epoch - 1))

    def _measure(self, trainer: Any, pl_module: Any, epoch: int) -> dict[str, float]:
        self.note_measured(trainer)
        poisoned = _poisoned_dataset(trainer)
        if poisoned is None or not len(poisoned.flips):
            return {"poison/count": 0.0}
        flips = poisoned.flips
        predictions = from_all_ranks(trainer, lambda: self._predict(trainer, pl_module, poisoned))[0]
        fitted, clean = shares(flips, predictions)
        values = {"poison/fitted": fitted, "poison/clean": clean, "poison/count": float(len(predictions))}
        self.history.append({"epoch": float(epoch), **values})
        self._flips, self._predictions = flips, predictions
        return values

    def report_sections(self) -> list[Section]:
        """Shares per clean class, some flipped points, and a warning where not all flips were memorised."""
        if self._flips is None or self._predictions is None:
            return []
        fitted, clean = shares(self._flips, self._predictions)
        count = len(self._predictions)
        summary = f"Of {count} flipped training points {fitted:.1%} are predicted as the flipped label"
        text = [f"{summary}, {clean:.1%} still as the clean label."]
        if fitted < 1:
            text.append(_WARNING)
        table = ReportTable(
            "Flipped points by clean label",
            ("clean label", "flipped", "fitted", "still clean", "other"),
            tuple(rows_by_class(self._flips, self._predictions)),
        )
        return [Section("Memorisation of the flips", tuple(text), (table,), self._figures())]

    def state_dict(self) -> dict[str, Any]:
        """The numbers of past epochs."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the epochs of the run that is resumed."""
        self.history = list(state_dict["history"])

    def _predict(self, trainer: Any, pl_module: Any, poisoned: PoisonedDataset) -> Tensor:
        positions = poisoned.flips.positions(len(poisoned.dataset))[: self.max_samples].tolist()
        collate = getattr(trainer.train_dataloader, "collate_fn", None) or default_collate
        predictions: list[Tensor] = []
        pictures: list[Tensor] = []
        shown = progress(trainer, "Memorisation", len(positions))
        with kept_random_state(), shown as advance, frozen_eval(pl_module), torch.no_grad():
            for batch in _batches(poisoned, positions, self.batch_size, collate):
                inputs, labels = inputs_and_labels(on_device(trainer, pl_module, batch))
                if not pictures:
                    pictures.append(inputs[:_PICTURES].detach().float().cpu().clone())
                with trainer.precision_plugin.forward_context():
                    scores = class_scores(pl_module, inputs)
                predictions.append(scores.argmax(dim=1).cpu())
                advance(len(labels))
        self._pictures = pictures[0]
        return torch.cat(predictions)

    def _figures(self) -> tuple[ReportFigure, ...]:
        pictures = self._pictures
        if self._flips is None or pictures is None or pictures.ndim != 4 or pictures.shape[1] not in (1, 3):
            return ()
        from lightning_poison.plots import image_grid

        pairs = zip(self._flips.old_label.tolist(), self._flips.new_label.tolist(), strict=True)
        titles = [f"{old} → {new}" for old, new in pairs][: len(pictures)]
        figure = image_grid(pictures, titles)
        caption = "Flipped training points: clean label → flipped label."
        return (ReportFigure.from_figure("flipped-points", caption, figure),)


def shares(flips: PoisonList, predictions: Tensor) -> tuple[float, float]:
    """Shares of the first len(predictions) flipped points predicted as flipped and as clean label.

    Args:
        flips: b flips.
        predictions: shape (m,), int64, m <= b, in the order of the list.

    Example:
        >>> from lightning_poison.poisons import FlipList
        >>> flips = FlipList(torch.arange(4), torch.zeros(4, dtype=torch.int64), torch.tensor([1, 1, 2, 2]))
        >>> shares(flips, torch.tensor([1, 0, 2, 1]))
        (0.5, 0.25)
    """
    m = len(predictions)
    fitted = (predictions == flips.new_label[:m]).double().mean()
    clean = (predictions == flips.old_label[:m]).double().mean()
    return fitted.item(), clean.item()


def rows_by_class(flips: PoisonList, predictions: Tensor) -> Iterator[tuple[int, int, int, int, int]]:
    """For each clean label: label, flipped points, fitted, still clean, predicted as something else.

    Example:
        >>> from lightning_poison.poisons import FlipList
        >>> flips = FlipList(torch.arange(3), torch.tensor([0, 0, 5]), torch.tensor([1, 1, 6]))
        >>> list(rows_by_class(flips, torch.tensor([1, 4, 5])))
        [(0, 2, 1, 0, 1), (5, 1, 0, 1, 0)]
    """
    m = len(predictions)
    old, new = flips.old_label[:m], flips.new_label[:m]
    for label in sorted(set(old.tolist())):
        of_label = old == label
        flipped = int(of_label.sum())
        fitted = int((of_label & (predictions == new)).sum())
        clean = int((of_label & (predictions == old) & (predictions != new)).sum())
        yield label, flipped, fitted, clean, flipped - fitted - clean


def _poisoned_dataset(trainer: Any) -> PoisonedDataset | None:
    loader = trainer.train_dataloader
    return find_poisoned_dataset(getattr(loader, "dataset", None))


def _batches(poisoned: PoisonedDataset, positions: list[int], batch_size: int, collate: Any) -> Iterator[Any]:
    for start in range(0, len(positions), batch_size):
        yield collate([poisoned[position] for position in positions[start : start + batch_size]])
