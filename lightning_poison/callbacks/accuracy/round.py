"""Attacking the batches of one evaluation, and counting what withstands."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_poison.attacks import (
    Attack,
    AttackResult,
    StochasticVictimWarning,
    class_scores,
    frozen_eval,
    is_stochastic,
)
from lightning_poison.attacks.base import GradientMaskingWarning
from lightning_poison.attacks.model import check_samples
from lightning_poison.attacks.outputs import selected_output
from lightning_poison.attacks.robustness_curve import each_radius, robustness_curve
from lightning_poison.attacks.samples import Samples
from lightning_poison.attacks.stochastic import fooling_draws
from lightning_poison.callbacks.accuracy.counts import AttackCounts, AttackedSamples
from lightning_poison.callbacks.natural_accuracy import NaturalAccuracies
from lightning_poison.callbacks.target_classes import TargetRule, targets_of
from lightning_poison.datamodules.labels import known_labels
from lightning_poison.errors import UserError
from lightning_poison.functional.norms import l2_size
from lightning_poison.functional.random_streams import generator, kept_random_state, mix_seed
from lightning_poison.trainer.batches import inputs_and_labels
from lightning_poison.trainer.evaluation import (
    EvaluatedSamples,
    collation,
    evaluation_loader,
    on_device,
    without_logging,
)
from lightning_poison.trainer.positions import EvaluationOrder

__all__ = ["TRIED", "AttackRound"]

TRIED = 2
"""Samples of a trial."""


class AttackRound:
    """Attacks on the samples of one evaluation after another.

    Args:
        attacks: by short name.
        key: from which the victim's own random numbers are drawn, if it has any.
        source: only samples with this label; None: all.
        target: what the attacks steer to; None: untargeted.
        max_samples: only among so many, which are drawn; None: all.
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
        self._samples: EvaluatedSamples | None = None
        self._batch = 0
        self._stochastic: bool | None = None  # until samples have been seen
        self._natural = NaturalAccuracies()

    def begin(self, trainer: Any, pl_module: Any) -> None:
        """Count from zero, with attacks that have learnt what they need of the present weights."""
        with torch.inference_mode(False):  # states made in inference mode could not be added to later
            self._counts.to(pl_module.device)
            self._counts.reset()
        self._batch, self._stochastic, self._natural = 0, None, NaturalAccuracies()
        self._samples = self.samples(trainer)
        model, attacks = selected_output(pl_module, self._output), list(self._attacks.values())
        self._ready = _prepared_attacks(trainer, pl_module, model, attacks, self._samples.left_out)

    @property
    def begun(self) -> bool:
        """Whether a batch of the present evaluation was attacked."""
        return self._batch > 0

    def samples(self, trainer: Any) -> EvaluatedSamples:
        """Which samples of the present evaluation are attacked, each once over all ranks.

        Raises:
            UserError: nobody can know, or too few are left besides the attackers' own.
        """
        attacks = list(self._attacks.values())
        return EvaluatedSamples(
            trainer, self._max_samples, known_labels, lambda order, drawn: _own_positions(order, drawn, attacks)
        )

    def try_out(self, trainer: Any, pl_module: Any, batch: Any) -> None:
        """Attack a few samples, as if the victim were right on them, to no other end than finding mistakes early.

        Raises:
            UserError: the classes or the output are none of the victim's, or an attack can't attack such samples.
        """
        inputs, labels = inputs_and_labels(batch)
        model = selected_output(pl_module, self._output)
        with self._undisturbed(trainer, pl_module, model):
            inputs, labels = inputs[:TRIED].clone(), labels[:TRIED].clone().long()
            if not len(labels):
                return
            inputs = check_samples(inputs, labels, None)
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

    @property
    def natural(self) -> NaturalAccuracies | None:
        """The accuracies without an attack on this rank; None where not every evaluated sample was asked about."""
        partial = self._max_samples is not None or self._source is not None or self._target is not None
        own = self._samples is not None and len(self._samples.left_out)
        return None if partial or own else self._natural

    def measured(self, trainer: Any, split: str, epoch: int) -> AttackedSamples:
        """The counts over all ranks, of each sample once; every rank must call it."""
        if self._samples is not None and not self._samples.count_here(trainer):
            self._counts.reset()
        return self._counts.measured(split, epoch, trainer)

    def measure(self, trainer: Any, pl_module: Any, batch: Any) -> None:
        """Attack a batch that the victim has just been evaluated on, in the order of the evaluation."""
        inputs, labels = inputs_and_labels(batch)
        assert self._samples is not None  # noqa: S101  # begin saw to it
        ids = self._samples.next(inputs, labels)
        model = selected_output(pl_module, self._output)
        with self._undisturbed(trainer, pl_module, model):
            self._batch += 1
            rows = self._rows(ids, labels)
            if not len(rows):
                return
            ids = ids[rows]
            inputs, labels = inputs[rows.to(inputs.device)].clone(), labels[rows.to(labels.device)].clone().long()
            inputs = check_samples(inputs, labels, None)
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
            kept_random_state(mix_seed(0, self._key, self._batch), pl_module.device),
            trainer.precision_plugin.forward_context(),
            without_logging(pl_module),
            frozen_eval(model),
            warnings.catch_warnings(),
        ):
            for kind in (GradientMaskingWarning, StochasticVictimWarning):
                warnings.simplefilter("ignore", kind)  # said once of all samples, not of each batch
            yield

    def _attack_samples(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, targets: Tensor | None, ids: Tensor
    ) -> None:
        """Attack and count samples that are all to be attacked."""
        if self._stochastic is None:
            self._stochastic = is_stochastic(model, inputs)
        with torch.no_grad():
            scores = class_scores(model, inputs)
        predictions = scores.argmax(dim=1)
        self._natural.update(labels, predictions, scores.shape[1])
        samples = Samples(inputs, labels, targets, ids, self._stochastic)
        results = [
            attack(model, inputs, labels, targets=targets, sample_ids=ids, stochastic=self._stochastic)
            for attack in self._ready
        ]
        details = [{"l2": _sizes(result, inputs), **result.details} for result in results]
        if self._stochastic:
            fooled, fooled_at = self._by_draws(model, samples, results)
        else:
            fooled, fooled_at = (
                torch.stack([result.fooled for result in results]),
                self._curves(model, samples, results),
            )
        self._counts.update(predictions == labels, fooled, details, fooled_at, stochastic=self._stochastic)

    def _curves(self, model: nn.Module, samples: Samples, results: Sequence[AttackResult]) -> Tensor | None:
        """Who is fooled at each radius, shape (attacks, radii, n); None without a sweep."""
        if not self._radii:
            return None
        curves = [
            robustness_curve(
                attack,
                self._radii,
                model,
                samples.inputs,
                samples.labels,
                samples.targets,
                samples.ids,
                known=known,
                stochastic=False,
            )
            for attack, known in zip(self._ready, results, strict=True)
        ]
        return torch.stack([curve.fooled for curve in curves])

    def _by_draws(
        self, model: nn.Module, samples: Samples, results: Sequence[AttackResult]
    ) -> tuple[Tensor, Tensor | None]:
        """Who is fooled, shape (1 + attacks, n), and at each radius, (1 + attacks, radii, n); the worst case first."""
        fooled = _with_worst_case(model, samples, self._ready, results)
        if not self._radii:
            return fooled, None
        sweeps = [
            each_radius(attack, self._radii, model, samples, known)
            for attack, known in zip(self._ready, results, strict=True)
        ]
        at_radii = [_with_worst_case(model, samples, self._ready, found) for found in zip(*sweeps, strict=True)]
        return fooled, torch.stack(at_radii, dim=1)

    def _rows(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Which samples of a batch to attack."""
        wanted = ids >= 0
        if self._source is not None:
            wanted &= labels.cpu().long() == self._source  # small integers would wrap the number
        return wanted.nonzero().squeeze(1)


def _with_worst_case(
    model: nn.Module, samples: Samples, attacks: Sequence[Attack], results: Sequence[AttackResult]
) -> Tensor:
    """Who is fooled by the strongest attack and by each, shape (1 + attacks, n), of a stochastic victim.

    The luckiest of several draws would be no attack's success: each sample's example is chosen in passes for that
    purpose, and the chosen one is then evaluated afresh.
    """
    each = torch.stack([result.fooled for result in results])
    if len(results) == 1:
        return torch.cat([each, each])
    chosen = torch.stack([fooling_draws(model, result.examples, samples) for result in results]).argmax(dim=0)
    worst = torch.zeros_like(each[0])
    for place, (attack, result) in enumerate(zip(attacks, results, strict=True)):
        rows = (chosen == place).nonzero().squeeze(1)
        if len(rows):
            worst[rows] = attack.judge(model, result.examples[rows], samples[rows])
    return torch.cat([worst[None], each])


def _sizes(result: AttackResult, inputs: Tensor) -> Tensor:
    """Euclidean size of what fools the victim, shape (n,); NaN where nothing does or nothing had to be changed."""
    sizes = l2_size((result.examples - inputs).float())
    return torch.where(result.fooled & (sizes > 0), sizes, torch.nan)


# --- the attackers' own inputs ----------------------------------------------------------------------------------------


def _prepared_attacks(
    trainer: Any, pl_module: Any, model: nn.Module, attacks: Sequence[Attack], positions: Tensor
) -> list[Attack]:
    """Let each attack that wants to learn of the model do so, on samples of the evaluated data.

    Every rank takes the same samples and prepares the same attack.

    Args:
        trainer: while it evaluates.
        pl_module: the module, whose hooks bring a batch to its device.
        model: the victim.
        attacks: some of which may have :attr:`~lightning_poison.attacks.Attack.own_inputs`.
        positions: of those samples in the data set, shape (n,), int64; see :func:`_own_positions`.

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


def _own_positions(order: EvaluationOrder, drawn: Tensor | None, attacks: Sequence[Attack]) -> Tensor:
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
        >>> bool((_own_positions(order, torch.arange(90), [SubstituteTransfer(own_inputs=5)]) >= 90).all())
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
