"""Which run a Trainer is in, and whether that begins or ends."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Run", "RunKeeper", "is_last_epoch", "run_of"]

_RUN = "_lightning_poison_run"


@dataclass
class Run:
    """What we know of the run that a Trainer is in.

    Args:
        key: tells it from other Trainers' runs; a text, as Trainer and callbacks may be pickled on their way to another
            process.
        name: by which folders and checkpoints know the run, those of the run that it goes on from included; None: no
            folder had to be told yet.
        folder: where its reports go, where the run shares its logger's folder with others; None: not known yet.
    """

    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    name: str | None = None
    folder: Path | None = None


def run_of(trainer: Any) -> Run:
    """The run of a Trainer, always the same.

    Example:
        >>> from types import SimpleNamespace
        >>> trainer = SimpleNamespace()
        >>> run_of(trainer) is run_of(trainer), run_of(trainer) == run_of(SimpleNamespace())
        (True, False)
    """
    run: Run = vars(trainer).setdefault(_RUN, Run())
    return run


class RunKeeper:
    """Remembers of which run somebody keeps results, so that another run starts from nothing.

    A Trainer is one run: its ``validate`` and ``test`` belong to the ``fit`` before them, and a ``fit`` that goes on
    with more epochs belongs to it, too. A ``fit`` from the first epoch is a new run; one that is resumed from a
    checkpoint takes over what that holds, which Lightning loads after ``setup``.

    Example:
        >>> from types import SimpleNamespace
        >>> keeper, trainer = RunKeeper(), SimpleNamespace(current_epoch=0)
        >>> keeper.begins(trainer, "fit"), keeper.begins(trainer, "test"), keeper.begins(trainer, "fit")
        (True, False, True)
    """

    def __init__(self) -> None:
        self._run: str | None = None

    def begins(self, trainer: Any, stage: str) -> bool:
        """Whether a new run begins; asked once in every ``setup``.

        Args:
            trainer: of the run.
            stage: as given to ``setup``.
        """
        run = run_of(trainer).key
        new = run != self._run or (stage == "fit" and trainer.current_epoch == 0)
        self._run = run
        return new


def is_last_epoch(trainer: Any) -> bool:
    """Whether ``trainer.fit`` ends with the present epoch, as far as can be known by now."""
    if trainer.should_stop:
        return True
    if trainer.max_steps not in (None, -1) and trainer.global_step >= trainer.max_steps:
        return True
    return trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs
