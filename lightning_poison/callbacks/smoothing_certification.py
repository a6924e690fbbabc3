"""How large a change of an evaluation input the smoothed victim withstands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn

from lightning_poison.attacks import frozen_eval
from lightning_poison.attacks.model import check_samples
from lightning_poison.attacks.outputs import selected_output
from lightning_poison.callbacks.base import Measurement, check_name, refuse_equal_names
from lightning_poison.callbacks.natural_accuracy import ForwardCheck
from lightning_poison.certificates.input_smoothing import InputSmoothing, SmoothedPoints, smoothing_section
from lightning_poison.certificates.input_smoothing.smoothing import check_deterministic
from lightning_poison.datamodules.labels import known_labels
from lightning_poison.functional.checks import check_number
from lightning_poison.functional.files import write_atomically
from lightning_poison.functional.random_streams import kept_random_state
from lightning_poison.report import LoggedMetric, Section
from lightning_poison.trainer.batches import inputs_and_labels
from lightning_poison.trainer.evaluation import (
    EvaluatedSamples,
    evaluation_loader,
    first_items,
    validation_batches,
    without_logging,
)
from lightning_poison.trainer.folders import report_folder
from lightning_poison.trainer.progress import progress
from lightning_poison.trainer.ranks import from_all_ranks, from_rank_zero

__all__ = ["SmoothingCertification"]

_RADII = (0.0, 0.25, 0.5, 0.75, 1.0)


class SmoothingCertification(Measurement, ForwardCheck):
    """Certify the smoothed victim against changes of validation and test inputs.

    The smoothed victim predicts what the victim most often predicts on copies of the input with Gaussian noise. Its
    certificates hold for every change of at most r in l2 norm, whoever makes it, and with probability 1 - alpha each.
    They are about the weights as they are: nothing is said about poisoned training. A victim that was trained without
    noise (``noise_std``) is rarely right under it.

    Each batch is certified right after Lightning has evaluated it. Every sample is counted once, also where a
    distributed sampler repeats some; the noise of a sample is the same on any number of ranks. Only the first
    evaluation loader is used. Weights, train/eval modes and the global random state stay as they are.

    Logs ``smooth/acc_at_R`` for each radius R (the share of points that are classified as their label and certified
    for changes of at most R), ``smooth/radius_mean`` (0 where it abstains) and ``smooth/abstained``; writes
    ``smoothing.csv`` (index, label, prediction or -1, radius, draws) to the report folder.

    Args:
        method: noise, number of copies and error probability; None: the default of ``InputSmoothing``.
        radii: radii R in pixel units, l2; 0 is added. None: 0, 0.25, 0.5, 0.75, 1.
        max_samples: certify at most so many points, drawn with a fixed seed, class by class where the data set tells
            its labels; None: all. A point takes up to ``n0 + n`` forward passes.
        every_n_epochs: certify after every n-th epoch of ``fit`` and after the last one; None: after the last only.
        name: ends the keys and the file name, to tell several of these callbacks apart.
        output: where the logits stand in what the victim's forward returns: a position in a tuple or a key of a
            dict; None: it returns them alone.

    Raises:
        UserError: a radius is negative, or two of these callbacks have the same name.

    Example:
        >>> SmoothingCertification(InputSmoothing(sigma=0.5, n=1000), radii=[0.5]).radii
        [0.0, 0.5]
    """

    also_outside_fit = True

    def __init__(
        self,
        method: InputSmoothing | None = None,
        radii: list[float] | None = None,
        max_samples: int | None = 100,
        every_n_epochs: int | None = None,
        name: str | None = None,
        output: int | str | None = None,
    ) -> None:
        super().__init__(every_n_epochs, max_samples)
        self.method = method if method is not None else InputSmoothing()
        given = _RADII if radii is None else radii
        self.radii = sorted({0.0, *(check_number("radii", radius, minimum=0) for radius in given)})
        self.name = check_name(name)
        self._suffix = "" if name is None else f"_{name}"
        self.output = output
        self._parts: list[SmoothedPoints] = []
        self._samples: EvaluatedSamples | None = None
        self._first = True
        self._points: SmoothedPoints | None = None

    def forget(self) -> None:
        """Nothing was certified in this run."""
        super().forget()
        self._points = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse two callbacks that would log the same keys."""
        super().setup(trainer, pl_module, stage)
        refuse_equal_names(self, trainer)

    def try_out(self, trainer: Any, pl_module: Any) -> None:
        """Ask the victim about a few points, to no other end than finding mistakes early."""
        loader = evaluation_loader(trainer)
        if loader is None:
            return
        samples = EvaluatedSamples(trainer, self.max_samples, known_labels)
        batch = first_items(trainer, pl_module, loader, samples.some(3))
        if batch is None:
            return
        inputs, labels = inputs_and_labels(batch)
        model = selected_output(pl_module, self.output)
        with self._undisturbed(trainer, pl_module), frozen_eval(model), torch.no_grad():
            check_deterministic(model, check_samples(inputs, labels, None))

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start from zero."""
        super().on_validation_epoch_start(trainer, pl_module)
        if self.is_due(trainer):
            self.attempt(trainer, lambda: self._begin(trainer), together=False)

    def on_test_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start from zero."""
        super().on_test_epoch_start(trainer, pl_module)
        self._begin(trainer)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Certify the batch that has just been validated."""
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        if dataloader_idx == 0 and self.is_due(trainer):
            self.attempt(trainer, lambda: self._certify(trainer, pl_module, batch), together=False)

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Certify the batch that has just been tested."""
        super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        if dataloader_idx == 0:
            self._certify(trainer, pl_module, batch)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the shares."""
        self._log(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the shares."""
        self._log(trainer, pl_module)

    def measure_at_end(self, trainer: Any, pl_module: Any) -> None:
        """Read the validation set once more."""
        validated = False
        for batch in validation_batches(trainer, pl_module):
            if not validated:
                self._begin(trainer)
            self._certify(trainer, pl_module, batch)
            validated = True
        if validated:
            self.log_at_end(trainer, self._finish(trainer))

    def report_sections(self) -> list[Section]:
        """Guarantee, table and curve of the last measurement."""
        if self._points is None:
            return []
        title = "Input smoothing" if self.name is None else f"Input smoothing, {self.name}"
        section = smoothing_section(self._points, self.method, self.radii, title)
        if self.other_function is not None:
            section = replace(section, text=(*section.text, f"Mind: {self.other_function}."))
        return [section]

    def _begin(self, trainer: Any) -> None:
        self._parts, self._samples = [], EvaluatedSamples(trainer, self.max_samples, known_labels)
        self._first = True

    @contextmanager
    def _undisturbed(self, trainer: Any, pl_module: Any) -> Iterator[None]:
        with (
            torch.inference_mode(False),
            kept_random_state(self.method.seed, pl_module.device),
            trainer.precision_plugin.forward_context(),
            without_logging(pl_module),
        ):
            yield

    def _certify(self, trainer: Any, pl_module: Any, batch: Any) -> None:
        inputs, labels = inputs_and_labels(batch)
        assert self._samples is not None  # noqa: S101  # the epoch's start saw to it
        if self._first:  # at an epoch's start and end other callbacks may exchange the weights
            self.note_measured(trainer, pl_module)
            self._first = False
        index = self._samples.next(inputs, labels)
        kept = index >= 0
        if not kept.any():
            return
        model, index = selected_output(pl_module, self.output), index[kept]
        shown = progress(trainer, "certificate: noisy copies of points", len(index))
        with self._undisturbed(trainer, pl_module), shown as advance:
            points = inputs[kept.to(inputs.device)].clone()
            certificate = self.method.certify(model, points, index, self.radii, advance)
            self._parts.append(SmoothedPoints(index, labels.cpu()[kept].long(), certificate, self._samples.known))

    def _log(self, trainer: Any, pl_module: Any) -> None:
        if self.is_due(trainer):
            values = self.attempt(trainer, lambda: self._finish(trainer))
            self.log_metrics(trainer, pl_module, values or [])

    def _finish(self, trainer: Any) -> list[LoggedMetric]:
        """The values to log, from all ranks; writes the table."""
        counted = self._samples is None or self._samples.count_here(trainer)
        shares = from_all_ranks(trainer, lambda: self._parts if counted else [])
        parts = [part for share in shares for part in share]
        self._parts = []
        if not parts:
            rank_zero_warn("SmoothingCertification has certified no point: no sample was evaluated")
            return []
        self._points = SmoothedPoints.merge(parts)
        from_rank_zero(trainer, lambda: self._write(trainer))
        method = self.method
        note = f"the smoothed victim, sigma {method.sigma:g}, {method.n:,} copies, alpha {method.alpha:g} a point"
        return self._points.metrics(self.radii, self._suffix, note)

    def _write(self, trainer: Any) -> None:
        folder = report_folder(trainer)
        if folder is not None and self._points is not None:
            write_atomically(folder / f"smoothing{self._suffix}.csv", self._points.csv())
