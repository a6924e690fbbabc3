"""What can be known to go wrong before a run makes its folder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher

from lightning_poison.errors import UserError

__all__ = ["check_data", "check_launcher", "check_root", "check_seed"]

_SEEDS = 2**32


def check_seed(seed: Any, compare_with_clean: bool) -> None:
    """Refuse a seed that the generators do not take, and a clean twin without a seed to share.

    Args:
        seed: of ``--seed_everything``: an integer, True for any, False for none.
        compare_with_clean: whether a clean twin will be trained.

    Raises:
        UserError: the seed is out of range, or is missing where two runs must share it.
    """
    if seed is False and compare_with_clean:
        raise UserError(
            "compare_with_clean needs a seed that both runs start from, got seed_everything=false; "
            "set --seed_everything=0, or --compare_with_clean=false"
        )
    if not isinstance(seed, bool) and not 0 <= seed < _SEEDS:
        raise UserError(f"seed_everything must lie in [0, {_SEEDS - 1}], got {seed}")


def check_root(root: str | Path) -> Path:
    """Refuse a folder for runs that nothing can be written to; nothing is left behind.

    Returns:
        the folder, or the nearest one above it that exists.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    if "://" in str(root):
        return Path.cwd()
    existing = Path(root).absolute()
    while not existing.exists():
        existing = existing.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".probe-", dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write to {root} ({error.strerror}: {existing}); "
            "choose another folder: --trainer.default_root_dir DIR"
        ) from error
    return existing


def check_data(data: Any, model: Any, poison: Any) -> None:
    """Refuse to go without a data module where one is needed.

    Args:
        data: the ``data`` section of the config.
        model: the ``model`` section.
        poison: the ``poison`` section.

    Raises:
        UserError: there are no data to flip labels of, or none to train a victim on.
    """
    if data is None and (poison is not None or str(model.class_path).endswith(".Victim")):
        raise UserError("data is missing; add --data=Digits, or begin with a shipped config: --config digits.yaml")


def check_launcher(trainer: Any) -> None:
    """Refuse to train in processes that end, and take what the report knows with them, before the test begins.

    Args:
        trainer: of a ``fit``.

    Raises:
        UserError: the strategy starts its processes by spawning or forking.
    """
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise UserError(
            "trainer.strategy must not spawn or fork processes in fit, whose report they would take along when they "
            "end; use --trainer.strategy=ddp"
        )
