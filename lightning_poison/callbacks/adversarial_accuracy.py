"""Adversarial accuracy at epoch ends."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torchattacks.attack import Attack as ForeignAttack

from lightning_poison.attacks import PGD, Attack, class_scores, frozen_eval
from lightning_poison.attacks.torchattacks_adapter import from_torchattacks
from lightning_poison.callbacks.attack_tables import (
    AttackedSamples,
    attack_table,
    describe_attack,
    history_table,
    result_table,
)
from lightning_poison.callbacks.base import Measurement
from lightning_poison.callbacks.batches import inputs_and_labels, sample_positions
from lightning_poison.callbacks.evaluation import validation_batches
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer
from lightning_poison.functional.random_state import kept_random_state
from lightning_poison.functional.random_streams import mix_seed
from lightning_poison.metrics import Share
from lightning_poison.report import Section

__all__ = ["AdversarialAccuracy"]


class AdversarialAccuracy(Measurement):
    """Accuracy of the victim on adversarial examples of the validation and test points.

    Each batch is attacked right after Lightning has validated it, so the data are read once and Lightning's own bar
    shows the progress. Every sample is counted once, also where a distributed sampler repeats some, and the counts
    of all ranks are added. Training is not touched: weights, gradients, BatchNorm statistics, train/eval modes and
    the global random state stay as they are. Only the first evaluation loader is measured. Where the last epoch of
    ``fit`` had no validation at its end, or was stopped early, the validation set is read once more.

    Logs ``{val,test}/adv_acc``, with ``_A_to_B`` or ``_to_B`` for a targeted attack and ``_NAME`` at the end.
    Untargeted it is the share of samples that keep their label under attack (a sample that is wrong anyway doesn't),
    targeted the share that isn't driven to the target.

    Args:
        attack: one of ``lightning_poison.attacks``, or what makes an attack of torchattacks from a module (on the
            command line and in YAML its class path, such as ``torchattacks.AutoAttack``); None: ``PGD()``.
        source: class A; only samples with this label are attacked. Needs ``target``.
        target: class B that the attack steers to; samples with this label are left out. None: untargeted.
        name: last part of the key, so that several of these callbacks can run side by side.
        every_n_epochs: measure after every n-th epoch of ``fit`` and after the last; None: only after the last.
        max_samples: measure only among the first so many samples of the data set, the same on any number of ranks.

    Raises:
        UserError: an argument is out of its range, or two callbacks would log the same key.

    Example:
        >>> callback = AdversarialAccuracy(PGD(eps=8 / 255), source=1, target=7, name="small")
        >>> callback.key
        'adv_acc_1_to_7_small'
    """

    def __init__(
        self,
        attack: Attack | Callable[[nn.Module], ForeignAttack] | None = None,
        source: int | None = None,
        target: int | None = None,
        name: str | None = None,
        every_n_epochs: int | None = 1,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(every_n_epochs, max_samples)
        self.attack = PGD() if attack is None else _usable(attack)
        self.source, self.target = _checked_classes(source, target)
        if name is not None and not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise UserError(f"name must be made of letters, digits, '.', '_' and '-', got {name!r}; it ends a log key")
        self.name = name
        self.history: list[AttackedSamples] = []
        self._latest: dict[str, AttackedSamples] = {}
        self._attack: Attack | None = None
        self._withstood, self._correct = Share(), Share()
        self._seen = 0

    @property
    def key(self) -> str:
        """The logged key without its first part."""
        classes = [] if self.target is None else ["to", str(self.target)]
        if self.source is not None:
            classes.insert(0, str(self.source))
        return "_".join(["adv_acc", *classes, *([] if self.name is None else [self.name])])

    @property
    def state_key(self) -> str:
        """Tells the states of several of these callbacks apart in a checkpoint."""
        attack = repr(self.attack) if isinstance(self.attack, Attack) else "torchattacks"
        return f"{type(self).__qualname__}({self.key}, {attack})"

    def state_dict(self) -> dict[str, Any]:
        """The epochs of ``fit`` measured so far, in plain Python."""
        return {"history": [asdict(entry) for entry in self.history]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the history."""
        self.history = [AttackedSamples(**entry) for entry in state_dict["history"]]

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Build the attack, so that its mistakes surface before any work."""
        twins = [
            other for other in trainer.callbacks if isinstance(other, AdversarialAccuracy) and other.key == self.key
        ]
        if len(twins) > 1:
            raise UserError(f"{len(twins)} AdversarialAccuracy callbacks log {self.key}; give each its own name")
        self._attack = self.attack if isinstance(self.attack, Attack) else from_torchattacks(self.attack, pl_module)

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start from zero."""
        self._reset(pl_module)

    def on_test_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start from zero."""
        self._reset(pl_module)

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Attack the batch that has just been validated."""
        if dataloader_idx == 0 and self.is_due(trainer):
            self._measure(trainer, pl_module, batch)

    def on_test_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Attack the batch that has just been tested."""
        if dataloader_idx == 0:
            self._measure(trainer, pl_module, batch)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the share."""
        if self.is_due(trainer):
            self.log_values(trainer, pl_module, self._finish(trainer, trainer.current_epoch))

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the share."""
        self.log_values(trainer, pl_module, self._finish(trainer, trainer.current_epoch))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure now if the last epoch came unannounced or without validation at its end."""
        if not self.is_overdue(trainer):
            return
        self._reset(pl_module)
        measured = False
        for batch in validation_batches(trainer, pl_module):
            self._measure(trainer, pl_module, batch)
            measured = True
        if measured:
            self.log_at_end(trainer, self._finish(trainer, trainer.current_epoch - 1))

    def report_sections(self) -> list[Section]:
        """The last measurement of each split with its interval, and how it came about."""
        if not self._latest or self._attack is None:
            return []
        suffix = self.key.removeprefix("adv_acc").strip("_").replace("_", " ")
        tables = [attack_table(self._attack), result_table(list(self._latest.values()))]
        if len(self.history) > 1:
            tables.append(history_table(self.history))
        title = f"Adversarial accuracy, {suffix}" if suffix else "Adversarial accuracy"
        return [Section(title, (self._in_words(),), tuple(tables))]

    def report_notes(self) -> dict[str, str]:
        """For each logged key, how it was measured."""
        if self._attack is None:
            return {}
        aim = "" if self.target is None else f", aimed at class {self.target}"
        return {f"{split}/{self.key}": describe_attack(self._attack) + aim for split in self._latest}

    def _in_words(self) -> str:
        if self.target is None:
            return "Share of the points that keep their label under attack; points that are wrong anyway do not."
        whose = "points" if self.source is None else f"points of class {self.source}"
        return f"Share of the {whose} that the attack does not drive to class {self.target}."

    def _reset(self, pl_module: Any) -> None:
        with torch.inference_mode(False):  # states made in inference mode could not be added to later
            for share in (self._withstood, self._correct):
                share.to(pl_module.device)
                share.reset()
        self._seen = 0

    def _measure(self, trainer: Any, pl_module: Any, batch: Any) -> None:
        if self._attack is None:
            return
        inputs, labels = inputs_and_labels(batch)
        positions = sample_positions(trainer, 0, 0, len(labels), first=self._seen)
        randomness = kept_random_state(mix_seed(0, self.key, self._seen), pl_module.device)  # if the victim draws any
        self._seen += len(labels)
        # The victim is attacked in the precision in which it is validated.
        with randomness, trainer.precision_plugin.forward_context(), frozen_eval(pl_module):
            rows = self._rows(positions.to(labels.device), labels)
            if not len(rows):
                return
            inputs, labels = inputs[rows].clone(), labels[rows].clone().long()
            targets = None if self.target is None else torch.full_like(labels, self.target)
            result = self._attack(pl_module, inputs, labels, targets=targets, sample_ids=positions[rows.cpu()])
            with torch.no_grad():
                predictions = class_scores(pl_module, inputs).argmax(dim=1)
            self._withstood.update(~result.fooled)
            self._correct.update(predictions == labels)

    def _rows(self, positions: Tensor, labels: Tensor) -> Tensor:
        """Which samples of a batch to attack."""
        wanted = positions >= 0
        if self.max_samples is not None:
            wanted &= positions < self.max_samples
        if self.target is not None:
            wanted &= labels != self.target
        if self.source is not None:
            wanted &= labels == self.source
        return wanted.nonzero().squeeze(1)

    def _finish(self, trainer: Any, epoch: int) -> dict[str, float]:
        """The value to log; none where no sample was attacked."""
        self.note_measured(trainer)
        with torch.inference_mode(False):
            withstood, samples = _counts(self._withstood)
            correct, _ = _counts(self._correct)
        if not samples:
            rank_zero_warn(f"{self.key} was not measured: none of the evaluated samples has a class that is attacked")
            return {}
        split = self.prefix(trainer)
        measured = AttackedSamples(split, epoch, samples, correct, withstood)
        self._latest[split] = measured
        if trainer.state.fn == "fit":
            self.history.append(measured)
        return {f"{split}/{self.key}": withstood / samples}


def _usable(attack: Any) -> Any:
    if isinstance(attack, type) and issubclass(attack, Attack):
        raise UserError(f"attack must be an attack, got the class {attack.__name__}; write {attack.__name__}()")
    if not callable(attack):
        raise UserError(f"attack must be an attack such as PGD(eps=0.1), got {attack!r}")
    return attack


def _checked_classes(source: int | None, target: int | None) -> tuple[int | None, int | None]:
    for name, label in (("source", source), ("target", target)):
        if label is not None:
            check_integer(name, label, minimum=0)
    if source is not None and target is None:
        raise UserError(f"source={source} needs target, the class to drive its samples to; or leave source out")
    if source is not None and source == target:
        raise UserError(f"target must differ from source, got {target} for both; choose another class")
    return source, target


def _counts(share: Share) -> tuple[int, int]:
    """How many were true of how many, over all ranks."""
    with share.sync_context():
        return int(share.true), int(share.total)
