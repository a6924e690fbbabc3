"""Inputs for an attacker to prepare with, taken out of the evaluated samples."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DistributedSampler, SequentialSampler

from lightning_poison.attacks import Attack
from lightning_poison.errors import UserError
from lightning_poison.functional.random_state import kept_random_state
from lightning_poison.functional.random_streams import generator
from lightning_poison.trainer.batches import inputs_and_labels
from lightning_poison.trainer.evaluation import evaluation_loader, on_device

__all__ = ["checked_positions", "own_positions", "prepared_attacks"]


def prepared_attacks(
    trainer: Any, pl_module: Any, model: nn.Module, attacks: Sequence[Attack], max_samples: int | None
) -> tuple[list[Attack], Tensor]:
    """Let each attack that wants to learn of the model do so, on samples of the evaluated data.

    Every rank takes the same samples and prepares the same attack.

    Args:
        trainer: while it evaluates.
        pl_module: the module, whose hooks bring a batch to its device.
        model: the victim.
        attacks: some of which may have :attr:`~lightning_poison.attacks.Attack.own_inputs`.
        max_samples: how many of the first samples will be measured; the attackers' come from behind them where there
            are enough.

    Returns:
        the attacks, ready to be called, and the positions of the samples used, shape (n,), int64, which must not be
        evaluated.

    Raises:
        UserError: the data have no indices or another order than the loader, or too few samples.
    """
    positions = checked_positions(trainer, attacks, max_samples)
    if not len(positions):
        return list(attacks), positions
    loader = evaluation_loader(trainer)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        kept_random_state(0, pl_module.device),
        trainer.precision_plugin.forward_context(),
    ):
        items = [loader.dataset[position] for position in positions.tolist()]
        inputs, _ = inputs_and_labels(on_device(trainer, pl_module, loader.collate_fn(items)))
        ready = [
            attack.prepare(model, inputs[: attack.own_inputs].clone()) if attack.own_inputs else attack
            for attack in attacks
        ]
    return ready, positions


def checked_positions(trainer: Any, attacks: Sequence[Attack], max_samples: int | None) -> Tensor:
    """The positions of the attackers' own inputs in what ``trainer`` evaluates, shape (n,), int64; often none.

    Raises:
        UserError: see :func:`prepared_attacks`.
    """
    wanted = max((attack.own_inputs for attack in attacks), default=0)
    if not wanted:
        return torch.empty(0, dtype=torch.int64)
    return own_positions(_length(evaluation_loader(trainer)), wanted, max_samples)


def own_positions(length: int, count: int, max_samples: int | None) -> Tensor:
    """``count`` of ``length`` positions, always the same ones, from behind the first ``max_samples`` if they suffice.

    Raises:
        UserError: nothing would be left to evaluate.

    Example:
        >>> bool((own_positions(100, 5, 90) >= 90).all()), len(own_positions(100, 50, 90))
        (True, 50)
    """
    if count >= length:
        raise UserError(
            f"the attack needs {count} inputs of its own besides the evaluated ones, got {length} samples in all; "
            "lower own_inputs, or evaluate more samples"
        )
    first = max_samples if max_samples is not None and length - max_samples >= count else 0
    drawn = torch.randperm(length - first, generator=generator(0, "own inputs"))[:count]
    return first + drawn.sort().values


def _length(loader: Any) -> int:
    """Number of samples, where the place in the evaluation is the index in the data set."""
    dataset, sampler = getattr(loader, "dataset", None), getattr(loader, "sampler", None)
    in_order = isinstance(sampler, SequentialSampler) or (
        isinstance(sampler, DistributedSampler) and sampler.dataset is dataset and not sampler.shuffle
    )
    if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__") or not in_order:
        raise UserError(
            "an attack with inputs of its own needs an evaluation DataLoader that reads a data set with indices in its "
            f"order, got {type(loader).__name__} over {type(dataset).__name__} with {type(sampler).__name__}; "
            "use a map-style data set without shuffling, or another attack"
        )
    return len(dataset)
