"""A bar on a terminal, whole lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ProgressBar

from lightning_poison.callbacks import LineProgress

__all__ = ["progress_callbacks"]


def progress_callbacks(trainer_config: Mapping[str, Any], callbacks: Iterable[Any]) -> list[Callback]:
    """What to add to the Trainer's callbacks so that progress reads well where it is printed."""
    if trainer_config.get("enable_progress_bar") is False or trainer_config.get("barebones"):
        return []
    if sys.stdout.isatty() or any(isinstance(callback, ProgressBar) for callback in callbacks):
        return []
    return [LineProgress()]
