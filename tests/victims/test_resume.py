from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from lightning_poison.errors import UserError
from lightning_poison.victims.victim import check_optimizer


def checkpoint_of(optimizer: torch.optim.Optimizer) -> dict[str, object]:
    return {"optimizer_states": [optimizer.state_dict()]}


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2))]


def test_another_optimizer_is_refused() -> None:
    adam = checkpoint_of(torch.optim.Adam(parameters()))
    with pytest.raises(UserError, match=r"has no dampening and no momentum .*, which SGD needs"):
        check_optimizer(adam, partial(torch.optim.SGD, lr=0.1))


def test_other_settings_and_schedulers_are_fine() -> None:
    optimizer = torch.optim.SGD(parameters(), lr=0.1)
    torch.optim.lr_scheduler.StepLR(optimizer, step_size=1)
    check_optimizer(checkpoint_of(optimizer), partial(torch.optim.SGD, lr=0.2, momentum=0.9))
    check_optimizer({}, torch.optim.Adam)
