"""Whether a checkpoint's optimizer is the one to go on with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lightning_poison.errors import UserError

__all__ = ["check_optimizer"]

_OF_SCHEDULERS = frozenset(("params", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "param_names"))


def check_optimizer(
    checkpoint: Mapping[str, Any], make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
) -> None:
    """Refuse a checkpoint whose optimizer has other settings than the one that would take over its state.

    Args:
        checkpoint: as Lightning saved it; one without optimizer states is fine.
        make_optimizer: makes the optimizer when called with parameters.

    Raises:
        UserError: the settings differ in kind.
    """
    states = checkpoint.get("optimizer_states") or []
    if not states:
        return
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1))])
    stored, own = set(states[0]["param_groups"][0]), set(optimizer.param_groups[0])
    lacking = sorted(own - stored - _OF_SCHEDULERS)
    if lacking:
        raise UserError(
            f"the checkpoint's optimizer has no {' and no '.join(lacking)}, which {type(optimizer).__name__} needs; "
            "go on with the optimizer that the run began with, as in its config.yaml, or train anew without ckpt_path"
        )
