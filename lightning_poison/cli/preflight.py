"""What can be known to go wrong before a run makes its folder: seed, folder, data, classes, model and checkpoint."""

from __future__ import annotations

import importlib
import inspect
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from lightning_poison.cli.checkpoints import check_fits
from lightning_poison.datamodules import PoisonedDataModule
from lightning_poison.datamodules.split_data import SplitDataModule
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import declared_classes
from lightning_poison.poisons import Poison
from lightning_poison.victims import Victim

__all__ = [
    "check_data",
    "check_known",
    "check_launcher",
    "check_root",
    "check_seed",
    "look_ahead",
    "num_classes_for",
]

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
    launcher = trainer.strategy.launcher
    if any(base.__name__ == "_MultiProcessingLauncher" for base in type(launcher).__mro__):  # Lightning's own, private
        raise UserError(
            "trainer.strategy must not spawn or fork processes in fit, whose report they would take along when they "
            "end; use --trainer.strategy=ddp"
        )


def num_classes_for(data: Any, poison: Poison | None, by_hand: int | None) -> int | None:
    """The victim's ``num_classes``: as many as the data have, one more with a new class.

    Args:
        data: the data module; its ``num_classes`` counts if it has one.
        poison: what will be done to its labels.
        by_hand: what the user set, if anything.

    Raises:
        UserError: the user's number contradicts the data.

    Example:
        >>> num_classes_for(None, None, by_hand=3)
        3
    """
    clean = declared_classes(data)
    if clean is None:
        return by_hand
    needed = clean if poison is None else poison.num_classes_after(clean)
    if by_hand is not None and by_hand != needed:
        cause = f"the data have {clean} classes" + (" and the poison adds a new one" if needed > clean else "")
        raise UserError(f"model.num_classes must be {needed} ({cause}), got {by_hand}; leave it out, it is filled in")
    return needed


def check_known(num_classes: int | None, data: Any, class_path: str) -> int | None:
    """Refuse an unknown number of classes where the model cannot be made without.

    Args:
        num_classes: None: neither the data nor the user say.
        data: the data module.
        class_path: of the model.

    Raises:
        UserError: the model's class needs the number.
    """
    if num_classes is not None:
        return num_classes
    module, _, name = class_path.rpartition(".")
    parameter = inspect.signature(getattr(importlib.import_module(module), name)).parameters.get("num_classes")
    if parameter is not None and parameter.default is inspect.Parameter.empty:
        raise UserError(
            f"model.num_classes is needed: {type(data).__name__} has no attribute num_classes to fill it in from; "
            "give it one, or set --model.num_classes=K"
        )
    return None


def look_ahead(
    data: PoisonedDataModule | None, model: Any, stage: str, ckpt_path: str | None, test_after_fit: bool
) -> None:
    """Load the data that the stage needs, draw the flips, try the model; refuse what does not fit.

    Args:
        data: the data module; None: the model brings its own data.
        model: the LightningModule.
        stage: ``fit``, ``validate``, ``test`` or ``predict``.
        ckpt_path: of the checkpoint, if there is one.
        test_after_fit: whether ``fit`` will need the test data as well.

    Raises:
        UserError: two of them do not fit each other.
    """
    if ckpt_path is not None and Path(ckpt_path).is_file():
        checkpoint = check_fits(ckpt_path, model, resume=stage == "fit")
    else:
        checkpoint = {}
    if data is not None:
        _look_at_data(data, model, stage, checkpoint, test_after_fit)
    if stage != "fit" and ckpt_path is None:
        print("No --ckpt_path is given: the model is used as it is made, untrained.", file=sys.stderr)


def _look_at_data(
    data: PoisonedDataModule, model: Any, stage: str, checkpoint: dict[str, Any], test_after_fit: bool
) -> None:
    data.prepare_data()
    data.setup(stage)
    if stage == "fit":
        if test_after_fit and isinstance(data.datamodule, SplitDataModule):
            data.setup("test")  # better now than after the training
        state = checkpoint.get(type(data).__qualname__)
        if state is not None:
            data.load_state_dict(state)
        with warnings.catch_warnings():  # they are given when the run begins
            warnings.simplefilter("ignore")
            data.check_model(model, try_input=isinstance(model, Victim))
