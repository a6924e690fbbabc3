"""What every measuring callback shares: when it is due, of which run and weights it is, how it logs, how it fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from pytorch_lightning.utilities import rank_zero_warn

from lightning_poison._lightning import Callback
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer
from lightning_poison.report import LoggedMetric, Section
from lightning_poison.trainer.folders import note_run, recall_run
from lightning_poison.trainer.ranks import from_all_ranks, settle_logged_metrics, shards_weights
from lightning_poison.trainer.runs import RunKeeper, is_last_epoch
from lightning_poison.trainer.weights import on_root_device, weights_fingerprint

__all__ = ["Measurement", "RunState", "check_name", "refuse_equal_names"]

T = TypeVar("T")


def check_name(name: str | None) -> str | None:
    """Return ``name`` if it can end keys and file names; None: the callback has none.

    Raises:
        UserError: it holds other characters than letters, digits and ``_.=+-``, or none.
    """
    if name is not None and not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_.=+-]+", name)):
        raise UserError(f"name must be letters, digits and _.=+-, got {name!r}; it ends log keys and file names")
    return name


def refuse_equal_names(callback: Any, trainer: Any) -> None:
    """Refuse two callbacks of one kind that would log the same keys and write the same files.

    Raises:
        UserError: another callback has the same name.
    """
    kind = type(callback)
    count = sum(isinstance(other, kind) and other.name == callback.name for other in trainer.callbacks)
    if count > 1:
        raise UserError(f"{count} {kind.__name__} callbacks have the name {callback.name!r}; give each its own")


class RunState(Callback):
    """Base of the callbacks that keep something of a run: another run starts from nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._keeper = RunKeeper()

    def forget(self) -> None:
        """Start from nothing."""

    def is_due(self, trainer: Any) -> bool:
        """Whether to measure in the present epoch: in the last one that is planned."""
        return is_last_epoch(trainer)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Forget another run."""
        if self._keeper.begins(trainer, stage):
            self.forget()


class Measurement(RunState):
    """Base of the callbacks that measure a classifier at epoch ends.

    A subclass measures in its hooks through :meth:`attempt`, so that a mistake that shows during ``fit`` costs neither
    the training nor a checkpoint: it is told at once as a warning, nothing more is measured, and it is raised when the
    fit has ended. What can be known before the training is refused before it, by :meth:`try_out`. The weights that the
    fit leaves are measured, whatever changed them last (early stopping, weight averaging): where they are not those
    that were measured last, :meth:`measure_at_end` is called once more.

    Args:
        every_n_epochs: measure after every n-th epoch of ``fit`` and after the last one; None: only after the last.
            ``validate`` and ``test`` always measure; the sanity check never does.
        max_samples: measure at most so many samples, drawn with a fixed seed; None: all.
    """

    def __init__(self, every_n_epochs: int | None = 1, max_samples: int | None = None) -> None:
        super().__init__()
        if every_n_epochs is not None:
            every_n_epochs = check_integer(
                "every_n_epochs", every_n_epochs, minimum=1, remedy="null measures after the last epoch only"
            )
        if max_samples is not None:
            max_samples = check_integer("max_samples", max_samples, minimum=1, remedy="null measures every sample")
        self.every_n_epochs = every_n_epochs
        self.max_samples = max_samples
        self._measured_weights: int | None = None
        self._trained = False
        self._failure: Exception | None = None
        self._gave_up = False
        self._logged: dict[str, LoggedMetric] = {}

    def forget(self) -> None:
        """No weights of this run were measured yet, and nothing failed."""
        super().forget()
        self._logged = {}
        self._measured_weights = self._failure = None
        self._gave_up = False

    # --- what a subclass says -----------------------------------------------------------------------------------------

    def try_out(self, trainer: Any, pl_module: Any) -> None:
        """Refuse, before the first step of a training, what would be refused after it.

        Raises:
            UserError: the data or the module cannot be measured.
        """

    def measure_at_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure the weights that ``fit`` leaves and log them by :meth:`log_at_end`, as they were not measured yet."""

    # --- hooks --------------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """No weights of this fit were measured yet."""
        self._measured_weights = self._failure = None
        self._trained = self._gave_up = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse before the training what cannot be measured after it."""
        self._trained = True
        self.try_out(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Note whose folder is this run's, for the run that goes on from here."""
        note_run(trainer, checkpoint)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Go on in the folder of the run that is resumed."""
        recall_run(trainer, checkpoint)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure now if the weights are others than those measured last; then tell what failed on the way.

        Every other callback has had its last word about the weights by now, and every checkpoint is written.
        """
        if self._trained and not self._gave_up and self.is_overdue(trainer, pl_module):
            if shards_weights(trainer):
                kind = type(trainer.strategy).__name__
                rank_zero_warn(
                    f"{type(self).__name__} did not measure the weights that fit left, which {kind} shards; "
                    "run validate with them"
                )
            else:
                with on_root_device(trainer, pl_module):
                    self.attempt(trainer, lambda: self.measure_at_end(trainer, pl_module))
        self._trained = False
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    # --- of which weights ---------------------------------------------------------------------------------------------

    def note_measured(self, trainer: Any, pl_module: Any) -> None:
        """Remember that the module's present weights were measured."""
        self._measured_weights = weights_fingerprint(pl_module) if trainer.state.fn == "fit" else None

    def is_overdue(self, trainer: Any, pl_module: Any) -> bool:
        """Whether the module's weights are others than those measured last; every rank must ask.

        Nobody knows beforehand that an epoch is the last one where another callback stops the fit, the last epoch may
        have no validation at its end, and weights may be averaged when all is over.
        """
        told = from_all_ranks(
            trainer, lambda: trainer.is_global_zero and self._measured_weights != weights_fingerprint(pl_module)
        )
        return told[0]

    # --- when ---------------------------------------------------------------------------------------------------------

    def is_due(self, trainer: Any) -> bool:
        """Whether to measure in the present epoch."""
        if trainer.sanity_checking:
            return False
        if not trainer.training and not self._validating_within_fit(trainer):
            return True
        if is_last_epoch(trainer):
            return True
        return self.every_n_epochs is not None and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    @staticmethod
    def _validating_within_fit(trainer: Any) -> bool:
        return bool(trainer.validating) and trainer.state.fn == "fit"

    # --- how it fails -------------------------------------------------------------------------------------------------

    def attempt(self, trainer: Any, measure: Callable[[], T], *, together: bool = True) -> T | None:
        """What ``measure`` returns; during ``fit`` what goes wrong is kept for the end of it, and None returned.

        Args:
            trainer: of the run.
            measure: does it.
            together: whether every rank is here, so that they can agree on what went wrong; else they agree the next
                time that they are.

        Raises:
            UserError: outside of ``fit``, what ``measure`` raised.
        """
        if trainer.state.fn != "fit":
            return measure()
        if self._gave_up or (together and self._agreed_to_give_up(trainer)) or self._failure is not None:
            return None
        result = None
        try:
            result = measure()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is raised at the end of fit
            self._failure = error
        return None if together and self._agreed_to_give_up(trainer) else result

    def _agreed_to_give_up(self, trainer: Any) -> bool:
        """Whether some rank has failed: then all have."""
        told = from_all_ranks(trainer, lambda: _told(self._failure))
        failure = next((one for one in told if one is not None), None)
        if failure is None:
            return False
        mistake, words = failure
        if self._failure is None:
            self._failure = UserError(words) if mistake else RuntimeError(f"another rank failed: {words}")
        self._gave_up = True
        rank_zero_warn(
            f"{type(self).__name__} failed and measures nothing more in this fit, which goes on and raises this error "
            f"at its end: {words}"
        )
        return True

    # --- how it logs --------------------------------------------------------------------------------------------------

    @staticmethod
    def prefix(trainer: Any) -> str:
        """``"test"`` while testing, else ``"val"``: the first part of an evaluation metric's key."""
        return "test" if trainer.testing else "val"

    def log_metrics(self, trainer: Any, pl_module: Any, metrics: Iterable[LoggedMetric]) -> None:
        """Log epoch-end values that are already equal on every rank, and keep what they mean for the report.

        (Lightning puts the module's own ``log`` on every callback, which takes other arguments.)
        """
        for metric in metrics:
            self._logged[metric.key] = metric
            # The maximum of equal numbers is that number: no rounding, unlike their mean.
            pl_module.log(
                metric.key,
                float(metric.value),
                on_step=False,
                on_epoch=True,
                sync_dist=trainer.world_size > 1,
                reduce_fx="max",
                batch_size=1,
            )
        settle_logged_metrics(trainer)

    def log_at_end(self, trainer: Any, metrics: Iterable[LoggedMetric]) -> None:
        """Log at the end of ``fit``, when the module's own ``log`` is closed; values are equal on every rank."""
        logged = {metric.key: metric for metric in metrics}
        if not logged:
            return
        self._logged |= logged
        values = {key: metric.value for key, metric in logged.items()}
        trainer.callback_metrics.update({key: torch.tensor(float(value)) for key, value in values.items()})
        for logger in trainer.loggers:
            logger.log_metrics({**values, "epoch": trainer.current_epoch - 1}, step=trainer.global_step)

    def report_metrics(self) -> list[LoggedMetric]:
        """What the logged values mean."""
        return list(self._logged.values())

    def report_sections(self) -> list[Section]:
        """What the report shows of this measurement."""
        return []


def _told(failure: Exception | None) -> tuple[bool, str] | None:
    """A failure as the other ranks learn of it: whether it is the user's mistake, and its words."""
    if failure is None:
        return None
    mistake = isinstance(failure, UserError)
    return mistake, str(failure) if mistake else f"{type(failure).__name__}: {failure}"
