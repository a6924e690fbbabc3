"""Whether a model can take the inputs and has an output for a class that the flips add."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lightning_poison.attacks.model import eval_mode
from lightning_poison.errors import UserError
from lightning_poison.functional.random_streams import kept_random_state
from lightning_poison.poisons import PoisonList

__all__ = ["check_input", "check_outputs"]


def check_outputs(model: Any, dataset: Any, flips: PoisonList, num_classes: int) -> None:
    """Refuse flips to a class that the model has no output for, before a loss fails on it.

    One training input goes through the model, in eval mode and without a trace; nothing is done where no flip leads
    beyond the clean classes, or where the model does not map a batch of inputs to logits.

    Args:
        model: the LightningModule, or None.
        dataset: clean training set of (input, label, ...) items.
        flips: the run's flips.
        num_classes: of the clean data.

    Raises:
        UserError: a flip leads to a class that the model has no output for.
    """
    highest = int(flips.new_label.max()) if len(flips) else -1
    if highest < num_classes or not _can_run(model):
        return
    logits = None
    # What goes wrong here goes wrong again in the first training step.
    with suppress(Exception), kept_random_state():
        logits = _output(model, dataset[0][0])
    if isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape[1] <= highest:
        raise UserError(
            f"flips to class {highest} need a model with {highest + 1} outputs, got {logits.shape[1]} from "
            f"{type(model).__name__}; build it with num_classes={highest + 1}, or flip to a class that the data have"
        )


def check_input(model: nn.Module, dataset: Any) -> None:
    """Refuse a network that cannot take the data's inputs.

    Args:
        model: maps a batch of inputs to logits.
        dataset: training set of (input, label, ...) items.

    Raises:
        UserError: the shapes do not fit.
    """
    with kept_random_state():
        item = dataset[0][0]
    if not isinstance(item, Tensor) or not _can_run(model):
        return
    try:
        _output(model, item)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"the network cannot take inputs of shape {tuple(item.shape)} ({reason}); "
            "give it the size of the data, as in in_channels=3, image_size=32 for 32 x 32 colour images"
        ) from error


def _can_run(model: Any) -> bool:
    if not isinstance(model, nn.Module):
        return False
    return not any(isinstance(weight, UninitializedParameter) or weight.is_meta for weight in model.parameters())


def _output(model: nn.Module, item: Tensor) -> Any:
    with torch.no_grad(), kept_random_state(), eval_mode(model):
        return model(item.unsqueeze(0).to(getattr(model, "device", "cpu")))
