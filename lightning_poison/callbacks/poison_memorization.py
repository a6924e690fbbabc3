"""How many of the flipped labels the victim has learnt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from lightning_poison.attacks import StochasticVictimWarning, class_scores, frozen_eval, is_stochastic
from lightning_poison.attacks.outputs import selected_output
from lightning_poison.callbacks.base import Measurement
from lightning_poison.callbacks.natural_accuracy import ForwardCheck
from lightning_poison.callbacks.training_points import (
    fetch,
    the_training_loader,
    trained_on,
    training_loaders,
    within_poisoned,
)
from lightning_poison.datamodules import find_poisoned_dataset
from lightning_poison.functional.checks import check_integer
from lightning_poison.functional.random_streams import kept_random_state
from lightning_poison.report import LoggedMetric, ReportFigure, ReportTable, Section
from lightning_poison.trainer.evaluation import without_logging
from lightning_poison.trainer.positions import draw_positions
from lightning_poison.trainer.progress import progress
from lightning_poison.trainer.ranks import from_all_ranks
from lightning_poison.trainer.weights import evaluated_weights

__all__ = ["PoisonMemorization"]

_PICTURES = 16
_WARNING = (
    "Numbers of a victim that did not memorise its flips understate what the flips can do: train longer, let the "
    "learning rate decay, and compare only runs that memorised equally much."
)

_STOCHASTIC = str(StochasticVictimWarning("each flipped point is judged by one pass"))


class PoisonMemorization(Measurement, ForwardCheck):
    """Measures which flipped training points the victim predicts as their flipped, and which as their clean label.

    Logs at the end of training epochs, with the victim in eval mode:

    - ``poison/fitted``: share of the flipped points predicted as the flipped label, in [0, 1];
    - ``poison/clean``: share still predicted as the clean label, in [0, 1];
    - ``poison/count``: number of flipped points measured. Without flips it is 0, and the shares are not logged.

    Flipped points that the training loader's sampler never yields are left out, as nobody could memorise them; a
    warning says how many they are. Every rank predicts every flipped point, and the numbers are rank zero's. Where the
    victim's scores of the same inputs differ from pass to pass, a point is judged by one pass, and this is said.

    Args:
        every_n_epochs: measure after every n-th epoch and after the last one; None: only after the last.
        max_samples: measure at most so many flipped points, drawn with a fixed seed, class by class; None: all.
        batch_size: points predicted at once.
        output: where the class scores stand in what the victim's forward returns: a position in a tuple or a key of a
            mapping; None: it returns them alone.

    Raises:
        UserError: an argument is out of range; (when the training begins) the training points cannot be told, or the
            victim gives no class scores for them.
    """

    def __init__(
        self,
        every_n_epochs: int | None = 1,
        max_samples: int | None = None,
        batch_size: int = 256,
        output: int | str | None = None,
    ) -> None:
        super().__init__(every_n_epochs, max_samples)
        self.batch_size = check_integer("batch_size", batch_size, minimum=1)
        self.output = output
        self.history: list[dict[str, float]] = []
        self._measured: _Measured | None = None

    def forget(self) -> None:
        """Nothing was measured in this run."""
        super().forget()
        self.history, self._measured = [], None

    def try_out(self, trainer: Any, pl_module: Any) -> None:
        """Predict a few flipped points, to no other end than finding mistakes early."""
        flipped = self._flipped_points(trainer)
        if flipped is not None and len(flipped.position):
            tried = self._predict(trainer, pl_module, replace(flipped, position=flipped.position[:3]), in_silence=True)
            if tried.stochastic:
                rank_zero_warn(_STOCHASTIC)
            if flipped.never:
                rank_zero_warn(
                    f"{flipped.never} of the flipped points are never trained on, as the training loader's sampler "
                    "does not yield them; they are not measured"
                )

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Predict the flipped points and log the shares."""
        if self.is_due(trainer):
            with evaluated_weights(trainer, pl_module):
                values = self.attempt(trainer, lambda: self._measure(trainer, pl_module, trainer.current_epoch))
            self.log_metrics(trainer, pl_module, values or [])

    def measure_at_end(self, trainer: Any, pl_module: Any) -> None:
        """Predict the flipped points with the weights that are left."""
        self.log_at_end(trainer, self._measure(trainer, pl_module, trainer.current_epoch - 1))

    def _measure(self, trainer: Any, pl_module: Any, epoch: int) -> list[LoggedMetric]:
        self.note_measured(trainer, pl_module)
        flipped = self._flipped_points(trainer)
        if flipped is None or not len(flipped.position):
            return [_counted(0)]
        predictions = from_all_ranks(trainer, lambda: self._predict(trainer, pl_module, flipped))[0]
        self._measured = _Measured(flipped, predictions)
        fitted, clean = shares(flipped.old_label, flipped.new_label, predictions.labels)
        metrics = [
            LoggedMetric(
                "poison/fitted",
                "Poisons fitted",
                "share",
                "Share of the flipped training points that the victim predicts as their flipped label.",
                fitted,
                kind="poison",
                headline=True,
            ),
            LoggedMetric(
                "poison/clean",
                "Poisons still predicted clean",
                "share",
                "Share of the flipped training points that the victim still predicts as their clean label.",
                clean,
                kind="poison",
            ),
            _counted(len(flipped.position)),
        ]
        kept = [entry for entry in self.history if entry["epoch"] != epoch]
        self.history = [*kept, {"epoch": float(epoch), **{metric.key: metric.value for metric in metrics}}]
        return metrics

    def _flipped_points(self, trainer: Any) -> _FlippedPoints | None:
        """The points to measure; None where no training data are poisoned."""
        poisoned = [one for one in training_loaders(trainer.train_dataloader) if _is_poisoned(one)]
        if not poisoned:
            return None
        loader = the_training_loader(poisoned, "PoisonMemorization")
        positions = trained_on(trainer, loader)
        dataset, inside = within_poisoned(loader.dataset, positions)
        assert dataset is not None  # noqa: S101  # it is poisoned
        flips = dataset.flips
        rows = {place: row for row, place in enumerate(flips.positions(len(dataset.dataset)).tolist())}
        places = zip(positions.tolist(), inside.tolist(), strict=True)
        found = {rows[place]: at for at, place in places if place in rows}  # once each, where a subset repeats points
        row, position = torch.tensor(sorted(found.items()), dtype=torch.int64).reshape(-1, 2).unbind(1)
        never = len(flips) - len(row)
        if self.max_samples is not None:
            drawn = draw_positions(len(row), self.max_samples, flips.old_label[row])
            row, position = row[drawn], position[drawn]
        return _FlippedPoints(loader, position, flips.old_label[row], flips.new_label[row], never)

    def _predict(
        self, trainer: Any, pl_module: Any, flipped: _FlippedPoints, *, in_silence: bool = False
    ) -> _Predictions:
        predictions: list[Tensor] = []
        pictures: list[Tensor] = []
        stochastic = False
        model = selected_output(pl_module, self.output)
        shown = nullcontext(lambda _: None) if in_silence else progress(trainer, "Memorisation", len(flipped.position))
        with (
            kept_random_state(0, pl_module.device),
            without_logging(pl_module),
            shown as advance,
            frozen_eval(model),
            torch.no_grad(),
        ):
            for part in torch.split(flipped.position, self.batch_size):
                inputs, _ = fetch(trainer, pl_module, flipped.loader, part)
                with trainer.precision_plugin.forward_context():
                    if not pictures:
                        pictures.append(inputs[:_PICTURES].detach().float().cpu().clone())
                        stochastic = is_stochastic(model, inputs)
                    predictions.append(class_scores(model, inputs).argmax(dim=1).cpu())
                advance(len(part))
        return _Predictions(torch.cat(predictions), pictures[0], stochastic)

    def report_sections(self) -> list[Section]:
        """Shares per clean class, some flipped points, and a warning where not all flips were memorised."""
        if (measured := self._measured) is None:
            return []
        flipped, predictions = measured.flipped, measured.predictions.labels
        fitted, clean = shares(flipped.old_label, flipped.new_label, predictions)
        summary = f"Of {len(predictions)} flipped training points {fitted:.1%} are predicted as the flipped label"
        text = [f"{summary}, {clean:.1%} still as the clean label."]
        if flipped.never:
            text.append(f"{flipped.never} flipped points are never trained on and are left out.")
        if fitted < 1:
            text.append(_WARNING)
        if measured.predictions.stochastic:
            text.append(f"Mind: {_STOCHASTIC}.")
        if self.other_function is not None:
            text.append(f"Mind: {self.other_function}.")
        table = ReportTable(
            "Flipped points by clean label",
            ("clean label", "flipped", "fitted", "still clean", "other"),
            tuple(rows_by_class(flipped.old_label, flipped.new_label, predictions)),
        )
        return [Section("Memorisation of the flips", tuple(text), (table,), _figures(measured))]

    def state_dict(self) -> dict[str, Any]:
        """The numbers of past epochs."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the epochs of the run that is resumed."""
        self.history = list(state_dict["history"])


def _counted(points: int) -> LoggedMetric:
    words = "How many training labels were flipped."
    return LoggedMetric("poison/count", "Flipped labels", "labels", words, float(points), kind="poison")


@dataclass(frozen=True)
class _FlippedPoints:
    """The points that are measured.

    Attributes:
        loader: the training loader.
        position: shape (m,), int64: in the loader's data set.
        old_label: shape (m,), int64.
        new_label: shape (m,), int64.
        never: how many flipped points are never trained on.
    """

    loader: Any
    position: Tensor
    old_label: Tensor
    new_label: Tensor
    never: int


@dataclass(frozen=True)
class _Predictions:
    """What the victim predicts at the points.

    Attributes:
        labels: shape (m,), int64, on the CPU.
        pictures: the first inputs, shape (n, ...), on the CPU.
        stochastic: whether the victim's scores differ from pass to pass.
    """

    labels: Tensor
    pictures: Tensor
    stochastic: bool


@dataclass(frozen=True)
class _Measured:
    flipped: _FlippedPoints
    predictions: _Predictions


def shares(old_label: Tensor, new_label: Tensor, predictions: Tensor) -> tuple[float, float]:
    """Shares of flipped points predicted as their flipped and as their clean label.

    Args:
        old_label: shape (m,), int64.
        new_label: shape (m,), int64.
        predictions: shape (m,), int64.

    Example:
        >>> shares(torch.zeros(4, dtype=torch.int64), torch.tensor([1, 1, 2, 2]), torch.tensor([1, 0, 2, 1]))
        (0.5, 0.25)
    """
    fitted = (predictions == new_label).double().mean()
    clean = (predictions == old_label).double().mean()
    return fitted.item(), clean.item()


def rows_by_class(
    old_label: Tensor, new_label: Tensor, predictions: Tensor
) -> Iterator[tuple[int, int, int, int, int]]:
    """For each clean label: label, flipped points, fitted, still clean, predicted as something else.

    Example:
        >>> list(rows_by_class(torch.tensor([0, 0, 5]), torch.tensor([1, 1, 6]), torch.tensor([1, 4, 5])))
        [(0, 2, 1, 0, 1), (5, 1, 0, 1, 0)]
    """
    for label in sorted(set(old_label.tolist())):
        of_label = old_label == label
        flipped = int(of_label.sum())
        fitted = int((of_label & (predictions == new_label)).sum())
        clean = int((of_label & (predictions == old_label) & (predictions != new_label)).sum())
        yield label, flipped, fitted, clean, flipped - fitted - clean


def _is_poisoned(loader: Any) -> bool:
    poisoned = find_poisoned_dataset(getattr(loader, "dataset", None))
    return poisoned is not None and len(poisoned.flips) > 0


def _figures(measured: _Measured) -> tuple[ReportFigure, ...]:
    pictures = measured.predictions.pictures
    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3):
        return ()
    from lightning_poison.plots import image_grid

    pairs = zip(measured.flipped.old_label.tolist(), measured.flipped.new_label.tolist(), strict=True)
    titles = [f"{old} → {new}" for old, new in pairs][: len(pictures)]
    figure = image_grid(pictures, titles)
    caption = "Flipped training points: clean label → flipped label."
    return (ReportFigure.from_figure("flipped-points", caption, figure),)
