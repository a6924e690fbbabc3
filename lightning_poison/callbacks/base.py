"""What every measuring callback shares: when it is due, how it logs, where its files go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from lightning_poison._lightning import Callback
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer
from lightning_poison.report import Section
from lightning_poison.trainer.folders import note_run, recall_run
from lightning_poison.trainer.ranks import settle_logged_metrics

__all__ = ["Measurement", "check_suffix", "is_last_epoch", "refuse_equal_suffixes"]


def is_last_epoch(trainer: Any) -> bool:
    """Whether ``trainer.fit`` ends with the present epoch, as far as can be known by now."""
    if trainer.should_stop:
        return True
    if trainer.max_steps not in (None, -1) and trainer.global_step >= trainer.max_steps:
        return True
    return trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs


def check_suffix(suffix: str) -> str:
    """Return ``suffix`` if it can end keys and file names.

    Raises:
        UserError: it holds other characters than letters, digits and ``_.=+-``.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.=+-]*", suffix):
        raise UserError(f"suffix must be letters, digits and _.=+-, got {suffix!r}; it ends file names too")
    return suffix


def refuse_equal_suffixes(callback: Any, trainer: Any) -> None:
    """Refuse two callbacks of one kind that would log the same keys and write the same files.

    Raises:
        UserError: another callback has the same suffix.
    """
    kind = type(callback)
    count = sum(isinstance(other, kind) and other.suffix == callback.suffix for other in trainer.callbacks)
    if count > 1:
        suffix = callback.suffix.removeprefix("_")
        raise UserError(f"{count} {kind.__name__} callbacks have the suffix {suffix!r}; give each its own")


class Measurement(Callback):
    """Base of the callbacks that measure a classifier at epoch ends.

    Args:
        every_n_epochs: measure after every n-th epoch of ``fit`` and after the last one; None: only after the last.
            ``validate`` and ``test`` always measure; the sanity check never does.
        max_samples: measure at most so many samples (the first ones); None: all.
    """

    def __init__(self, every_n_epochs: int | None = 1, max_samples: int | None = None) -> None:
        super().__init__()
        if every_n_epochs is not None:
            check_integer("every_n_epochs", every_n_epochs, minimum=1, remedy="null measures after the last epoch only")
        if max_samples is not None:
            check_integer("max_samples", max_samples, minimum=1, remedy="null measures every sample")
        self.every_n_epochs = every_n_epochs
        self.max_samples = max_samples
        self._measured_after: int | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """No weights of this fit were measured yet."""
        self._measured_after = None

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Note whose folder is this run's, for the run that goes on from here."""
        note_run(trainer, checkpoint)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Go on in the folder of the run that is resumed."""
        recall_run(trainer, checkpoint)

    def note_measured(self, trainer: Any) -> None:
        """Remember that the present weights were measured."""
        self._measured_after = int(trainer.global_step)

    def is_overdue(self, trainer: Any) -> bool:
        """Whether ``fit``, which has just ended, leaves weights that were not measured.

        Nobody knows beforehand that an epoch is the last one where another callback stops the fit, and the last epoch
        may have no validation at its end. Asked in ``on_train_end``.
        """
        return self._measured_after != int(trainer.global_step)

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

    @staticmethod
    def prefix(trainer: Any) -> str:
        """``"test"`` while testing, else ``"val"``: the first part of an evaluation metric's key."""
        return "test" if trainer.testing else "val"

    @staticmethod
    def log_values(trainer: Any, pl_module: Any, values: Mapping[str, float]) -> None:
        """Log epoch-end values that are already equal on every rank.

        (Lightning puts the module's own ``log`` on every callback, which takes other arguments.)
        """
        for key, value in values.items():
            # The maximum of equal numbers is that number: no rounding, unlike their mean.
            pl_module.log(
                key,
                float(value),
                on_step=False,
                on_epoch=True,
                sync_dist=trainer.world_size > 1,
                reduce_fx="max",
                batch_size=1,
            )
        settle_logged_metrics(trainer)

    @staticmethod
    def log_at_end(trainer: Any, values: Mapping[str, float]) -> None:
        """Log in ``on_train_end``, when the module's own ``log`` is closed; values are equal on every rank."""
        if not values:
            return
        trainer.callback_metrics.update({key: torch.tensor(float(value)) for key, value in values.items()})
        for logger in trainer.loggers:
            logger.log_metrics({**values, "epoch": trainer.current_epoch - 1}, step=trainer.global_step)

    def report_sections(self) -> list[Section]:
        """What the report shows of this measurement."""
        return []
