"""The report at the end of a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from lightning_poison.callbacks.base import RunState
from lightning_poison.datamodules import find_poisoned_dataset
from lightning_poison.errors import UserError
from lightning_poison.report import (
    Baseline,
    LoggedMetric,
    RunReport,
    Section,
    print_table,
    read_baseline,
    write_report,
)
from lightning_poison.report.comparison import comparison_figure, robustness_section
from lightning_poison.report.logged_metric import describe
from lightning_poison.report.run_report import History, as_number
from lightning_poison.report.run_sections import flips_section, training_section
from lightning_poison.trainer.folders import log_folder, note_run, recall_run, report_folder
from lightning_poison.trainer.run_facts import (
    command_line,
    config_text,
    data_facts,
    now,
    poison_facts,
    run_title,
    seeds,
    training_dataset,
    versions,
)
from lightning_poison.trainer.weights import weights_fingerprint
from lightning_poison.victims.victim import classifier_metrics

__all__ = ["Report"]


class Report(RunState):
    """Writes ``LOG_DIR/report/`` and prints a closing table when ``fit``, ``validate`` or ``test`` has ended.

    The folder holds ``index.html`` (self-contained), ``report.json`` (every number with its unit, seeds, versions),
    the figures as PNG, ``flips.csv`` and what other callbacks put there. ``fit`` and a ``test`` after it share one
    report. Only rank zero writes and prints; the last line printed is the path of the page. Under ``fast_dev_run``
    the table is printed and nothing written; a run that fails or is interrupted writes no report.

    Every callback with a method ``report_sections() -> list[Section]`` contributes sections. Every callback, and the
    module, with a method ``report_metrics() -> list[LoggedMetric]`` says what its metric keys mean: label, unit, words,
    how they were measured. A module's ``{train,val,test}/acc`` and ``/loss`` are understood; what nobody describes
    stands under its plain key.

    Args:
        title: heading of the page; None: from the data and the number of flips.
        baseline: ``report.json`` of another run, or a folder that holds it, to compare with; usually the clean twin.

    Attributes:
        quiet: print nothing at the end of a run; whoever sets it calls :meth:`print` in the end.
        command: the command line that the report names; None: the one of this process.
        metrics: last value by key, of ``fit`` and the ``validate`` or ``test`` after it.

    Raises:
        UserError: ``baseline`` is missing, is no report, or belongs to other data (at the start).

    Example:
        >>> Report(title="MNIST, ten flips per class").metrics
        {}
    """

    def __init__(self, title: str | None = None, baseline: str | Path | None = None) -> None:
        super().__init__()
        self.title = title
        self.baseline = baseline
        self.quiet = False
        self.command: str | None = None
        self.metrics: dict[str, float] = {}
        self._history = History()
        self._described: dict[str, LoggedMetric] = {}
        self._weights = _Weights()
        self._epoch: int | None = None
        self._compared_with = None if baseline is None else read_baseline(baseline)
        self._flips: Any | None = None
        self._data: dict[str, Any] = {}
        self._folder: Path | None = None
        self._page: Path | None = None
        self._trainer: Any | None = None

    # --- for a driver of several runs ---------------------------------------------------------------------------------

    def compare_with(self, metrics: Mapping[str, float], label: str = "clean twin") -> None:
        """Compare with another run's numbers from now on; call :meth:`write` to bring the page up to date."""
        self._compared_with = Baseline(dict(metrics), label)

    def write(self, trainer: Any) -> Path | None:
        """Write the report as it stands.

        Returns:
            The path of the page; None on the other ranks and where the run keeps no files.
        """
        if self._folder is None or not trainer.is_global_zero:
            return None
        flips_file = None if self._flips is None else self._folder / self._flips.file_name
        if self._flips is not None and flips_file is not None and not flips_file.exists():
            self._flips.write(flips_file)
        report = self.contents(trainer)
        beside = robustness_section(report)
        sections = [*self._sections(trainer, report), *([] if beside is None else [beside])]
        report = replace(report, sections=tuple(sorted(sections, key=lambda section: section.order)))
        self._page = write_report(self._folder, replace(report, comparison_figure=comparison_figure(report)))
        return self._page

    def print(self, trainer: Any) -> None:
        """Print the closing table and, last, the path of the page, on rank zero."""
        if not trainer.is_global_zero:
            return
        print_table(self.contents(trainer))
        if self._page is not None:
            print(self._page, flush=True)

    def contents(self, trainer: Any) -> RunReport:
        """What the report says at the moment, without its sections."""
        files = [] if self._folder is None else [file.name for file in sorted(self._folder.glob("*.csv"))]
        return RunReport(
            title=self.title or run_title(trainer, self._flips),
            created=now(),
            command=self.command or command_line(),
            metrics=dict(self.metrics),
            history=self._history.curves(),
            baseline=self._compared_with,
            seeds=seeds(trainer, self._flips),
            versions=versions(),
            data=dict(self._data),
            poison=poison_facts(self._flips),
            described=self._describe(trainer),
            config=config_text(self._folder, log_folder(trainer)),
            extra_files=tuple(files),
        )

    # --- hooks --------------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Nothing is known of this run yet."""
        self.metrics, self._epoch, self._flips, self._data = {}, None, None, {}
        self._weights, self._described = _Weights(), {}
        self._history.clear()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Another run starts from nothing."""
        super().setup(trainer, pl_module, stage)
        self._folder = self._page = None
        self._trainer = trainer

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take note of data and flips, which exist by now."""
        self._note_data(trainer)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Take over what the epoch before logged last."""
        self._collect_leftovers(trainer)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Take note of the weights that the module's own numbers are about."""
        if batch_idx == dataloader_idx == 0 and not trainer.sanity_checking:
            self._weights.evaluated(trainer, "val", pl_module)

    def on_test_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Take note of the weights that the test is about."""
        if batch_idx == dataloader_idx == 0:
            self._weights.evaluated(trainer, "test", pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Take over the validation's numbers, before a checkpoint is written."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._history.collect(trainer.current_epoch, trainer.callback_metrics)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Take over the epoch's numbers, before a checkpoint is written."""
        self._epoch = trainer.current_epoch
        self._history.collect(self._epoch, trainer.callback_metrics)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Take over what the last epoch logged last."""
        self._collect_leftovers(trainer)
        self._weights.logged = dict(trainer.callback_metrics)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Write and print, after everything else has spoken."""
        self._trainer = None
        if stage not in ("fit", "validate", "test"):
            return
        if stage == "fit":
            self._collect_leftovers(trainer)
            self._weights.left(trainer, pl_module)
        self.metrics.update({key: as_number(value) for key, value in trainer.callback_metrics.items()})
        self._note_data(trainer)
        self._folder = report_folder(trainer)
        self.write(trainer)
        if not self.quiet:
            _close_progress_bar(trainer, pl_module, stage)
            self.print(trainer)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Note whose folder is this run's, for the run that goes on from here."""
        note_run(trainer, checkpoint)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Go on in the folder of the run that is resumed."""
        recall_run(trainer, checkpoint)

    def state_dict(self) -> dict[str, Any]:
        """History and meanings, in plain Python, with what the module logged after the callbacks' turn."""
        if self._trainer is not None:
            self._collect_leftovers(self._trainer)
            self._describe(self._trainer)
        meanings = [asdict(metric) for metric in self._described.values()]
        for meaning in meanings:
            del meaning["value"]
        return {"history": self._history.state_dict(), "described": meanings}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the history of the run that is resumed."""
        self._history.load_state_dict(state_dict["history"])
        self._described = {entry["key"]: LoggedMetric(**entry) for entry in state_dict.get("described", [])}

    # --- parts --------------------------------------------------------------------------------------------------------

    def _collect_leftovers(self, trainer: Any) -> None:
        if self._epoch is not None:
            self._history.collect(self._epoch, trainer.callback_metrics)

    def _describe(self, trainer: Any) -> dict[str, LoggedMetric]:
        """By key, what the numbers of this run mean, as far as somebody says."""
        for owner in (trainer.lightning_module, *trainer.callbacks):
            if hasattr(owner, "report_metrics"):
                self._described |= {metric.key: metric for metric in owner.report_metrics()}
        known = {metric.key: metric for metric in classifier_metrics()} | self._described
        stale = {key: describe(key, known) for key in self._weights.stale}
        caution = "of weights that fit did not leave"
        return known | {key: replace(metric, note=metric.note or caution) for key, metric in stale.items()}

    def _note_data(self, trainer: Any) -> None:
        flips = _find_flips(trainer)
        if flips is not None:
            self._flips = flips
        self._data = {**self._data, **data_facts(trainer, self._flips)}
        _check_same_data(self._compared_with, self._data)

    def _sections(self, trainer: Any, report: RunReport) -> list[Section]:
        """Flips and training, and what the callbacks contribute."""
        sections = self._weights.sections()
        if self._flips is not None:
            sections.append(flips_section(self._flips, self._data.get("num_classes_with_flips")))
        training = training_section(report)
        if training is not None:
            sections.append(training)
        for callback in trainer.callbacks:
            if hasattr(callback, "report_sections"):
                sections += callback.report_sections()
        return sections


class _Weights:
    """Of which weights the numbers of a report are: those that ``fit`` leaves, or else the report says so.

    Attributes:
        logged: the values by key when the last epoch had ended; what was measured later is another object.
        stale: the keys of the module's own numbers that are of other weights.
    """

    def __init__(self) -> None:
        self.logged: dict[str, Any] = {}
        self._of: dict[str, int] = {}
        self._left: int | None = None
        self.stale: list[str] = []
        self._tested: str | None = None

    def evaluated(self, trainer: Any, split: str, pl_module: Any) -> None:
        """An evaluation of the module begins."""
        self._of[split] = weights_fingerprint(pl_module)
        if trainer.state.fn == "fit" or self._left is None:
            return
        if split == "val":
            self.stale = []  # the module's own numbers are logged again
        other = self._of[split] != self._left
        checkpoint = "" if trainer.ckpt_path is None else f", of the checkpoint {Path(trainer.ckpt_path).name}"
        self._tested = (
            f"{trainer.state.fn.value} had other weights than those that fit left{checkpoint}" if other else None
        )

    def left(self, trainer: Any, pl_module: Any) -> None:
        """``fit`` has ended, and leaves these weights."""
        self._left = weights_fingerprint(pl_module)
        before = self._of.get("val")
        if before is None or before == self._left:
            self.stale = []
            return
        metrics = trainer.callback_metrics
        self.stale = [key for key, value in metrics.items() if key.startswith("val") and self.logged.get(key) is value]
        if self.stale:
            rank_zero_warn(
                f"{_listed(self.stale)} were logged before the weights changed for the last time (by averaging, say), "
                "so they are not of the weights that fit leaves; run validate with those"
            )

    def sections(self) -> list[Section]:
        """A caution where not all numbers are of the same weights."""
        text = []
        if self.stale:
            text.append(
                f"{_listed(self.stale)} are of the weights of the last validation, which changed once more before the "
                "fit ended (as weight averaging does). Every other measurement is of the weights that fit left."
            )
        if self._tested is not None:
            text.append(f"The {self._tested}; its numbers do not belong beside those of fit.")
        return [Section("Mind which weights", tuple(text), order=1)] if text else []


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:-1]) + " and " + keys[-1] if len(keys) > 1 else keys[0]


def _find_flips(trainer: Any) -> Any | None:
    """The flips in the training data, or those that the data module or a callback took from a checkpoint."""
    poisoned = find_poisoned_dataset(training_dataset(trainer))
    if poisoned is not None:
        return poisoned.flips
    for owner in (getattr(trainer, "datamodule", None), *trainer.callbacks):
        flips = getattr(getattr(owner, "training_flips", None), "flips", None)
        if flips is not None:
            return flips
    return None


def _close_progress_bar(trainer: Any, pl_module: Any, stage: str) -> None:
    """End the bar's display now: a live one would be drawn again below the last line."""
    bar = trainer.progress_bar_callback
    if bar is not None and sys.stdout.isatty():
        bar.teardown(trainer, pl_module, stage)


def _check_same_data(baseline: Baseline | None, data: Mapping[str, Any]) -> None:
    mine, other = data.get("fingerprint"), None if baseline is None else baseline.fingerprint
    if baseline is not None and mine and other and mine != other:
        raise UserError(
            f"baseline must be a run on the same data, got fingerprint {other} in {baseline.source}, "
            f"this run's is {mine}; use the same data, classes, max_samples and seed"
        )
