"""Whether the function that is measured is the one whose accuracy the module logs."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from lightning_poison.attacks import class_scores, frozen_eval, is_stochastic
from lightning_poison.attacks.outputs import selected_output
from lightning_poison.callbacks.base import RunState
from lightning_poison.errors import UserError
from lightning_poison.functional.random_streams import kept_random_state
from lightning_poison.trainer.batches import inputs_and_labels
from lightning_poison.trainer.evaluation import without_logging
from lightning_poison.trainer.ranks import from_all_ranks

__all__ = ["ForwardCheck", "NaturalAccuracies", "disagreement", "logged_accuracies", "readings"]

_STAGES = {"val": {"val", "valid", "validation"}, "test": {"test", "testing"}}
# Accuracies of another kind, of other data, of other weights, or of another time.
_OTHERS = re.compile(
    r"bal|balanced|class|per|f|macro|weighted|adv|adversarial|robust|robustness|attack|attacked|pgd|fgsm|aa|cw|"
    r"autoattack|cert|certified|poison|poisoned|smooth|smoothed|noise|noisy|corrupt|corrupted|train|training|"
    r"best|max|min|step|ema|swa|ensemble|loss|error|err|[02-9]|\d\d+"
)
_TOLERANCE, _ERRORS = 0.02, 3


class NaturalAccuracies:
    """The accuracies without an attack, by every way of counting that a project may have, of one rank's samples.

    Example:
        >>> counted = NaturalAccuracies()
        >>> counted.update(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 0]), 2)
        >>> counted.update(torch.tensor([1, 1]), torch.tensor([1, 1]), 2)
        >>> [round(value, 3) for value in counted.values()]  # of samples, of batches, of classes, of batches' classes
        [0.833, 0.875, 0.833, 0.667, 0.75]
    """

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._right: list[Tensor] = []
        self._of_classes: list[Tensor] = []
        self._by_class: Tensor | None = None

    def update(self, labels: Tensor, predictions: Tensor, num_classes: int) -> None:
        """Add a batch.

        Args:
            labels: shape (n,), int64.
            predictions: shape (n,), int64.
            num_classes: K, more than every label and prediction.
        """
        right = labels == predictions
        counts = torch.zeros(3, num_classes, dtype=torch.int64, device=labels.device)
        ones = torch.ones_like(labels)
        for row, (classes, weight) in enumerate(((labels, ones), (labels, right.long()), (predictions, ones))):
            counts[row].scatter_add_(0, classes, weight)
        self._sizes.append(len(labels))
        self._right.append(right.sum())
        self._of_classes.append(_mean_of_classes(counts))
        self._by_class = counts if self._by_class is None else self._by_class + counts

    def values(self) -> list[float]:
        """The share of all samples, its mean over batches, the mean over classes, and that over batches, two ways."""
        if self._by_class is None:
            return []
        sizes = torch.tensor(self._sizes, dtype=torch.float64)
        right = torch.stack(self._right).cpu().double()
        of_classes = torch.stack(self._of_classes).cpu()
        values = [
            right.sum() / sizes.sum(),
            (right / sizes).mean(),
            _mean_of_classes(self._by_class).cpu(),
            (of_classes * sizes).sum() / sizes.sum(),
            of_classes.mean(),
        ]
        return [float(value) for value in values]

    @property
    def samples(self) -> int:
        """How many samples they are of."""
        return sum(self._sizes)

    def on_cpu(self) -> NaturalAccuracies:
        """The same, fit to be sent to other ranks."""
        return NaturalAccuracies.merged([self])

    @classmethod
    def merged(cls, parts: Sequence[NaturalAccuracies]) -> NaturalAccuracies:
        """Those of all batches of several ranks, on the CPU."""
        whole = cls()
        for part in parts:
            whole._sizes += part._sizes
            whole._right += [right.cpu() for right in part._right]
            whole._of_classes += [mean.cpu() for mean in part._of_classes]
            if part._by_class is not None:
                counts = part._by_class.cpu()
                whole._by_class = counts if whole._by_class is None else whole._by_class + counts
        return whole


def readings(parts: Sequence[NaturalAccuracies]) -> list[float]:
    """What a module may log, given each rank's samples: of all, of rank zero's, and the means over the ranks.

    Args:
        parts: one a rank; the share of all samples comes first.
    """
    values = NaturalAccuracies.merged(parts).values()
    each = [part.values() for part in parts if part.samples]
    if len(each) > 1:
        values += each[0] + [statistics.fmean(column) for column in zip(*each, strict=True)]
    return values


def _mean_of_classes(counts: Tensor) -> Tensor:
    """The mean share of right predictions, over the classes that are labels or predicted, as torchmetrics has it."""
    count, right, predicted = counts.float().unbind()
    present = (count + predicted) > 0
    return (right / count.clamp_min(1))[present].mean().double()


def logged_accuracies(metrics: Mapping[str, Any], split: str) -> dict[str, float]:
    """What looks like the module's own top-1 accuracy on a split, as logged: a share or per cent.

    Args:
        metrics: of the Trainer.
        split: "val" or "test".

    Example:
        >>> metrics = {"val_acc": 0.9, "val/adv_acc": 0.1, "valTop5Acc": 0.99, "train_acc": 1.0, "val_loss": 0.3}
        >>> logged_accuracies(metrics, "val")
        {'val_acc': 0.9}
    """
    found = {}
    for key, value in metrics.items():
        words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", str(key))]
        if not {"acc", "accuracy"} & set(words) or not _STAGES[split] & set(words):
            continue
        if any(_OTHERS.fullmatch(word) for word in words):
            continue
        number = _as_number(value)
        if number is not None and 0 <= number <= 100:
            found[str(key)] = number
    return found


def _as_number(value: Any) -> float | None:
    if isinstance(value, Tensor) and value.numel() != 1:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        return None
    return number if math.isfinite(number) else None


def disagreement(logged: Mapping[str, float], counted: Sequence[float], slack: float = 0) -> str | None:
    """A sentence where none of the accuracies that a module logs is that of its forward; None where one is.

    They may differ by 0.02, since precision and the last digits of a log differ.

    Args:
        logged: by key, see :func:`logged_accuracies`.
        counted: what it may be, see :func:`readings`; the first is shown.
        slack: by how much more they may differ.

    Example:
        >>> disagreement({"val_acc": 0.967}, [0.893]).split(", so")[0]
        'the module logs val_acc 0.967, but its forward is right on 0.893 of the samples'
        >>> disagreement({"val_acc": 89.5}, [0.893]) is None
        True
    """
    if not counted or not logged:
        return None
    tolerance = _TOLERANCE + slack
    for value in logged.values():
        if any(abs(reading - own) <= tolerance for reading in (value, value / 100) for own in counted):
            return None
    shown = ", ".join(f"{key} {value:.4g}" for key, value in logged.items())
    return (
        f"the module logs {shown}, but its forward is right on {counted[0]:.4g} of the samples, so what is measured "
        "isn't what the module's own step evaluates; do within forward what the step does beside it (normalisation of "
        "the batch, averaged weights, several views), or log the share of right predictions if it is another kind of "
        "accuracy"
    )


def other_function(
    trainer: Any, metrics: Mapping[str, Any], parts: Sequence[NaturalAccuracies], *, stochastic: bool = False
) -> str | None:
    """A sentence where the module's step evaluates another function than its forward.

    Args:
        trainer: after an evaluation of one loader.
        metrics: what was logged.
        parts: the samples of each rank, all of them.
        stochastic: whether the forward's scores differ from pass to pass: then two passes may differ by three standard
            errors.
    """
    loaders = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    counted = readings(parts)
    if not counted or (isinstance(loaders, (list, tuple, dict)) and len(loaders) > 1):
        return None
    fewest = min(part.samples for part in parts if part.samples)
    slack = 1 / fewest if len(parts) > 1 else 0.0  # a distributed sampler repeats a sample to even the ranks out
    if stochastic:
        slack += _ERRORS * math.sqrt(2 * counted[0] * (1 - counted[0]) / fewest)
    return disagreement(logged_accuracies(metrics, "test" if trainer.testing else "val"), counted, slack)


class ForwardCheck(RunState):
    """Base of callbacks that measure ``forward`` without counting how often it is right on the evaluation data.

    Whatever is measured with the module's forward is about another function than the module's own numbers where its
    step does more than that: normalises the batch, asks averaged weights. So one of these callbacks counts forward's
    right predictions while Lightning evaluates, and compares. That takes a forward pass a batch, and is left out
    where :class:`~lightning_poison.callbacks.AdversarialAccuracy` compares anyway.

    Attributes:
        output: where the scores stand in what the forward returns.
        other_function: the sentence that was warned of; None: nothing speaks against it.
    """

    compares_forward = False
    also_outside_fit = False
    output: int | str | None
    other_function: str | None = None
    _natural: NaturalAccuracies | None = None
    _random: bool | None = None
    _incomparable = False

    def forget(self) -> None:
        """Nothing was compared in this run."""
        super().forget()
        self.other_function = self._natural = None

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Count from zero."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._begin_comparison(trainer)

    def on_test_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Count from zero."""
        super().on_test_epoch_start(trainer, pl_module)
        self._begin_comparison(trainer)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count the right predictions of the forward."""
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        self._count(trainer, pl_module, batch)

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count the right predictions of the forward."""
        super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        self._count(trainer, pl_module, batch)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Compare with what the module itself has logged."""
        super().on_validation_end(trainer, pl_module)
        self._compare(trainer)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Compare with what the module itself has logged."""
        super().on_test_end(trainer, pl_module)
        self._compare(trainer)

    def _begin_comparison(self, trainer: Any) -> None:
        checks = [
            other for other in trainer.callbacks if isinstance(other, ForwardCheck) and other._may_compare(trainer)
        ]
        compared = any(getattr(other, "compares_forward", False) for other in trainer.callbacks)
        mine = bool(checks) and checks[0] is self and not compared
        self._natural, self._random, self._incomparable = NaturalAccuracies() if mine else None, None, False

    def _may_compare(self, trainer: Any) -> bool:
        inside = trainer.state.fn == "fit"
        return (inside or self.also_outside_fit) and not trainer.sanity_checking and self.is_due(trainer)

    def _count(self, trainer: Any, pl_module: Any, batch: Any) -> None:
        if self._natural is None or self._incomparable:
            return
        model = selected_output(pl_module, self.output)
        try:
            inputs, labels = inputs_and_labels(batch)
            with (
                kept_random_state(0, pl_module.device),
                trainer.precision_plugin.forward_context(),
                without_logging(pl_module),
                frozen_eval(model),
                torch.no_grad(),
            ):
                if self._random is None:
                    self._random = is_stochastic(model, inputs)
                scores = class_scores(model, inputs.clone())
            self._natural.update(labels.long(), scores.argmax(dim=1), scores.shape[1])
        except (UserError, RuntimeError):  # what is measured need not be evaluation batches, so that these may be odd
            self._incomparable = True

    def _compare(self, trainer: Any) -> None:
        if self._natural is None:
            return
        natural, self._natural = self._natural, None
        metrics = dict(trainer.callback_metrics)  # on every rank, as it may be computed now
        parts = from_all_ranks(trainer, lambda: None if self._incomparable else natural.on_cpu())
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return
        sentence = other_function(trainer, metrics, known, stochastic=bool(self._random))
        if sentence is not None and self.other_function is None:
            rank_zero_warn(f"{type(self).__name__}: {sentence}")
        for other in trainer.callbacks:
            if isinstance(other, ForwardCheck):
                other.other_function = sentence
