"""Whether data, poison, model and checkpoint fit each other, before the run makes any folder."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

from lightning_poison.cli.checkpoints import check_fits
from lightning_poison.datamodules import PoisonedDataModule, SplitDataModule
from lightning_poison.victims import Victim

__all__ = ["look_ahead"]


def look_ahead(
    data: PoisonedDataModule | None, model: Any, stage: str, ckpt_path: str | None, test_after_fit: bool
) -> None:
    """Load the data that the stage needs, draw the flips, try the model.

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
