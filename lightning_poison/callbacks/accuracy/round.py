"""Attacking the batches of one evaluation, and counting what withstands."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_poison.attacks import Attack, AttackResult, class_scores, frozen_eval
from lightning_poison.attacks.base import GradientMaskingWarning
from lightning_poison.attacks.outputs import selected_output
from lightning_poison.attacks.robustness_curve import robustness_curve
from lightning_poison.callbacks.accuracy.attacked_samples import AttackedSamples
from lightning_poison.callbacks.accuracy.counts import AttackCounts
from lightning_poison.callbacks.accuracy.own_inputs import checked_positions, prepared_attacks
from lightning_poison.callbacks.target_classes import TargetRule, targets_of
from lightning_poison.errors import UserError
from lightning_poison.functional.norms import l2_size
from lightning_poison.functional.random_state import kept_random_state
from lightning_poison.functional.random_streams import mix_seed
from lightning_poison.trainer.batches import inputs_and_labels, sample_positions

__all__ = ["AttackRound"]

_TRIED = 2  # samples of a trial


class AttackRound:
    """Attacks on the samples of one evaluation after another.

    Args:
        attacks: by short name.
        key: from which the victim's own random numbers are drawn, if it has any.
        source: only samples with this label; None: all.
        target: what the attacks steer to; None: untargeted.
        max_samples: only among the first so many; None: all.
        radii: of the sweep; empty without one.
        output: where the logits stand in what the victim returns; None: it returns them alone.
    """

    def __init__(
        self,
        attacks: Mapping[str, Attack],
        *,
        key: str,
        source: int | None = None,
        target: TargetRule | None = None,
        max_samples: int | None = None,
        radii: Sequence[float] = (),
        output: int | str | None = None,
    ) -> None:
        self._attacks, self._key = dict(attacks), key
        self._source, self._target, self._max_samples = source, target, max_samples
        self._radii, self._output = list(radii), output
        self._counts = AttackCounts(list(self._attacks), len(self._radii))
        self._ready = list(self._attacks.values())
        self._left_out = torch.empty(0, dtype=torch.int64)
        self._seen = 0

    def begin(self, trainer: Any, pl_module: Any) -> None:
        """Count from zero, with attacks that have learnt what they need of the present weights."""
        with torch.inference_mode(False):  # states made in inference mode could not be added to later
            self._counts.to(pl_module.device)
            self._counts.reset()
        self._seen = 0
        self._ready, self._left_out = prepared_attacks(
            trainer,
            pl_module,
            selected_output(pl_module, self._output),
            list(self._attacks.values()),
            self._max_samples,
        )

    def check(self, trainer: Any) -> None:
        """Refuse, before any training, data that hold too few samples for the attackers' own inputs."""
        checked_positions(trainer, list(self._attacks.values()), self._max_samples)

    def try_out(self, trainer: Any, pl_module: Any, batch: Any) -> None:
        """Attack a few samples, as if the victim were right on them, to no other end than finding mistakes early.

        Raises:
            UserError: the classes or the output are none of the victim's, or an attack can't attack such samples.
        """
        inputs, labels = inputs_and_labels(batch)
        model = selected_output(pl_module, self._output)
        with self._undisturbed(trainer, pl_module, model):
            inputs, labels = inputs[:_TRIED].clone(), labels[:_TRIED].clone().long()
            if not len(labels):
                return
            with torch.no_grad():
                scores = class_scores(model, inputs)
            if self._source is not None and self._source >= scores.shape[1]:
                classes = f"one of the victim's classes 0 to {scores.shape[1] - 1}"
                raise UserError(f"source must be {classes}, got {self._source}; choose one of them")
            labels = scores.argmax(dim=1)
            targets = targets_of(self._target, trainer, model, inputs, labels)
            for attack in self._attacks.values():
                if not attack.own_inputs:  # the others would have to learn first
                    attack(model, inputs, labels, targets=targets)

    @property
    def ready(self) -> dict[str, Attack]:
        """The attacks by short name, as prepared for the present evaluation."""
        return dict(zip(self._attacks, self._ready, strict=True))

    def measured(self, trainer: Any, split: str, epoch: int) -> AttackedSamples:
        """The counts over all ranks; every rank must call it."""
        return self._counts.measured(split, epoch, trainer)

    def measure(self, trainer: Any, pl_module: Any, batch: Any) -> None:
        """Attack a batch that the victim has just been evaluated on, in the order of the evaluation."""
        inputs, labels = inputs_and_labels(batch)
        positions = sample_positions(trainer, 0, 0, len(labels), first=self._seen)
        model = selected_output(pl_module, self._output)
        with self._undisturbed(trainer, pl_module, model):
            self._seen += len(labels)
            rows = self._rows(positions.to(labels.device), labels)
            if not len(rows):
                return
            inputs, labels = inputs[rows].clone(), labels[rows].clone().long()
            ids = positions[rows.cpu()]
            targets = targets_of(self._target, trainer, model, inputs, labels)
            if targets is not None:
                kept = targets != labels
                inputs, labels, targets, ids = inputs[kept], labels[kept], targets[kept], ids[kept.cpu()]
            if len(labels):
                self._attack_samples(model, inputs, labels, targets, ids)

    @contextmanager
    def _undisturbed(self, trainer: Any, pl_module: Any, model: nn.Module) -> Iterator[None]:
        """Random numbers of its own, if the victim draws any, and the precision in which the victim is validated."""
        with (
            kept_random_state(mix_seed(0, self._key, self._seen), pl_module.device),
            trainer.precision_plugin.forward_context(),
            frozen_eval(model),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", GradientMaskingWarning)  # said once of all samples, not of each batch
            yield

    def _attack_samples(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, targets: Tensor | None, ids: Tensor
    ) -> None:
        """Attack and count samples that are all to be attacked."""
        with torch.no_grad():
            correct = class_scores(model, inputs).argmax(dim=1) == labels
        fooled, details, broken = [], [], []
        for attack in self._ready:
            result = attack(model, inputs, labels, targets=targets, sample_ids=ids)
            fooled.append(result.fooled)
            details.append({"l2": _sizes(result, inputs), **result.details})
            if self._radii:
                curve = robustness_curve(attack, self._radii, model, inputs, labels, targets, ids, known=result)
                broken.append(curve.broken_at)
        self._counts.update(correct, torch.stack(fooled), details, torch.stack(broken) if broken else None)

    def _rows(self, positions: Tensor, labels: Tensor) -> Tensor:
        """Which samples of a batch to attack."""
        wanted = (positions >= 0) & ~torch.isin(positions, self._left_out.to(positions.device))
        if self._max_samples is not None:
            wanted &= positions < self._max_samples
        if self._source is not None:
            wanted &= labels == self._source
        return wanted.nonzero().squeeze(1)


def _sizes(result: AttackResult, inputs: Tensor) -> Tensor:
    """Euclidean size of what fools the victim, shape (n,); NaN where nothing does or nothing had to be changed."""
    sizes = l2_size((result.examples - inputs).float())
    return torch.where(result.fooled & (sizes > 0), sizes, torch.nan)
