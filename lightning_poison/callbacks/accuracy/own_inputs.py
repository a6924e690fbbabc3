"""Inputs for an attacker to prepare with, taken out of the evaluated samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_poison.attacks import Attack
from lightning_poison.errors import UserError
from lightning_poison.functional.random_state import kept_random_state
from lightning_poison.functional.random_streams import generator
from lightning_poison.trainer.batches import inputs_and_labels
from lightning_poison.trainer.evaluation import collation, evaluation_loader, on_device
from lightning_poison.trainer.positions import EvaluationOrder

__all__ = ["own_positions", "prepared_attacks"]


def prepared_attacks(
    trainer: Any, pl_module: Any, model: nn.Module, attacks: Sequence[Attack], positions: Tensor
) -> list[Attack]:
    """Let each attack that wants to learn of the model do so, on samples of the evaluated data.

    Every rank takes the same samples and prepares the same attack.

    Args:
        trainer: while it evaluates.
        pl_module: the module, whose hooks bring a batch to its device.
        model: the victim.
        attacks: some of which may have :attr:`~lightning_poison.attacks.Attack.own_inputs`.
        positions: of those samples in the data set, shape (n,), int64; see :func:`own_positions`.

    Returns:
        the attacks, ready to be called.
    """
    if not len(positions):
        return list(attacks)
    loader = evaluation_loader(trainer)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        kept_random_state(0, pl_module.device),
        trainer.precision_plugin.forward_context(),
    ):
        items = [loader.dataset[position] for position in positions.tolist()]
        inputs, _ = inputs_and_labels(on_device(trainer, pl_module, collation(loader)(items)))
        return [
            attack.prepare(model, inputs[: attack.own_inputs].clone()) if attack.own_inputs else attack
            for attack in attacks
        ]


def own_positions(order: EvaluationOrder, drawn: Tensor | None, attacks: Sequence[Attack]) -> Tensor:
    """The positions of the attackers' own inputs among the evaluated samples, always the same ones.

    They are none of those that are drawn to be measured, where the others suffice.

    Args:
        order: of the evaluation.
        drawn: the samples that are measured, shape (m,), int64; None: all.
        attacks: of which some may want inputs of their own.

    Returns:
        shape (n,), int64, rising; often none. They must not be evaluated.

    Raises:
        UserError: samples are not known by their position, or nothing would be left to evaluate.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from lightning_poison.attacks import SubstituteTransfer
        >>> order = EvaluationOrder(DataLoader(range(100)))
        >>> bool((own_positions(order, torch.arange(90), [SubstituteTransfer(own_inputs=5)]) >= 90).all())
        True
    """
    wanted = max((attack.own_inputs for attack in attacks), default=0)
    if not wanted:
        return torch.empty(0, dtype=torch.int64)
    if not order.known:
        raise UserError(
            "an attack with inputs of its own needs an evaluation DataLoader whose samples are known by their position "
            "in a map-style data set; evaluate without shuffling, or use another attack"
        )
    samples = order.samples
    if wanted >= len(samples):
        raise UserError(
            f"the attack needs {wanted} inputs of its own besides the evaluated ones, got {len(samples)} samples in "
            "all; lower own_inputs, or evaluate more samples"
        )
    free = samples if drawn is None else samples[~torch.isin(samples, drawn)]
    if len(free) < wanted:
        free = samples
    return free[torch.randperm(len(free), generator=generator(0, "own inputs"))[:wanted]].sort().values
