"""Adversarial accuracy at epoch ends."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn
from scipy.stats import binomtest
from torch import Tensor, nn
from torchattacks.attack import Attack as ForeignAttack

from lightning_poison.attacks import PGD, Attack, class_scores, frozen_eval
from lightning_poison.attacks.torchattacks_adapter import TorchAttack, from_torchattacks
from lightning_poison.callbacks.base import Measurement
from lightning_poison.callbacks.batches import inputs_and_labels, sample_positions
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer
from lightning_poison.functional.pixels import in_grey_levels
from lightning_poison.metrics import Share
from lightning_poison.report import ReportTable, Section

__all__ = ["AdversarialAccuracy"]


@dataclass(frozen=True)
class _Measured:
    """One epoch's numbers."""

    split: str
    epoch: int
    samples: int
    correct: int
    withstood: int


class AdversarialAccuracy(Measurement):
    """Accuracy of the victim on adversarial examples of the validation and test points.

    Each batch is attacked right after Lightning has validated it, so the data are read once and Lightning's own bar
    shows the progress. Every sample is counted once, also where a distributed sampler repeats some, and the counts
    of all ranks are added. Training is not touched: weights, gradients, BatchNorm statistics, train/eval modes and
    the global random state stay as they are. Only the first evaluation loader is measured.

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
        self.history: list[_Measured] = []
        self._latest: dict[str, _Measured] = {}
        self._attack: Attack | None = None
        self._withstood, self._correct = Share(), Share()

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
        self.history = [_Measured(**entry) for entry in state_dict["history"]]

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
        self._measure(trainer, pl_module, batch, batch_idx, dataloader_idx)

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
        self._measure(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the share."""
        self._finish(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the share."""
        self._finish(trainer, pl_module)

    def report_sections(self) -> list[Section]:
        """The last measurement of each split with its interval, and how it came about."""
        if not self._latest or self._attack is None:
            return []
        suffix = self.key.removeprefix("adv_acc").strip("_").replace("_", " ")
        tables = [_attack_table(self._attack), _result_table(list(self._latest.values()))]
        if len(self.history) > 1:
            tables.append(_history_table(self.history))
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

    def _measure(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        if self._attack is None or dataloader_idx != 0 or not self.is_due(trainer):
            return
        inputs, labels = inputs_and_labels(batch)
        positions = sample_positions(trainer, batch_idx, dataloader_idx, len(labels))
        with frozen_eval(pl_module):
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

    def _finish(self, trainer: Any, pl_module: Any) -> None:
        if not self.is_due(trainer):
            return
        with torch.inference_mode(False):
            withstood, samples = _counts(self._withstood)
            correct, _ = _counts(self._correct)
        if not samples:
            rank_zero_warn(f"{self.key} was not measured: none of the evaluated samples has a class that is attacked")
            return
        split = self.prefix(trainer)
        measured = _Measured(split, trainer.current_epoch, samples, correct, withstood)
        self._latest[split] = measured
        if trainer.state.fn == "fit":
            self.history.append(measured)
        self.log_values(trainer, pl_module, {f"{split}/{self.key}": withstood / samples})


def describe_attack(attack: Attack) -> str:
    """An attack in one line.

    Example:
        >>> describe_attack(PGD(eps=0.1))
        'PGD, linf, eps 0.1 (25.5/255), 40 steps'
    """
    steps = getattr(attack, "steps", None)
    radius = [attack.norm or "no norm", f"eps {attack.eps:.4g} ({in_grey_levels(attack.eps)})"]
    return ", ".join([attack.name, *(radius if attack.norm else []), *([] if steps is None else [f"{steps} steps"])])


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


def _attack_table(attack: Attack) -> ReportTable:
    steps = getattr(attack, "steps", None)
    criterion = "last iterate" if isinstance(attack, TorchAttack) else getattr(attack, "success", "any iterate")
    bounded = math.isfinite(attack.eps)
    columns = ("attack", "norm", "eps, pixel units", "eps, grey levels", "steps", "success")
    eps = (f"{attack.eps:.4g}", in_grey_levels(attack.eps)) if bounded else (None, None)
    return ReportTable("The attack", columns, ((attack.name, attack.norm, *eps, steps, criterion),))


def _result_table(latest: list[_Measured]) -> ReportTable:
    rows = []
    for entry in latest:
        low, high = binomtest(entry.withstood, entry.samples).proportion_ci(0.95, method="exact")
        interval = f"{100 * low:.1f} to {100 * high:.1f} %"
        rows.append((entry.split, entry.samples, *_accuracies(entry), interval))
    columns = ("data", "samples", "natural accuracy", "adversarial accuracy", "95 % interval (exact)")
    return ReportTable("Last measurement", columns, tuple(rows))


def _history_table(history: list[_Measured]) -> ReportTable:
    rows = tuple((entry.epoch, entry.split, entry.samples, *_accuracies(entry)) for entry in history)
    columns = ("epoch", "data", "samples", "natural accuracy", "adversarial accuracy")
    return ReportTable("Over the epochs of training", columns, rows)


def _accuracies(entry: _Measured) -> tuple[str, str]:
    return f"{100 * entry.correct / entry.samples:.2f} %", f"{100 * entry.withstood / entry.samples:.2f} %"
