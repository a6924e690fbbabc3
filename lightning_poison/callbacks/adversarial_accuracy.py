"""Adversarial accuracy at epoch ends."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn
from torch import nn
from torchattacks.attack import Attack as ForeignAttack

from lightning_poison.attacks import PGD, Attack
from lightning_poison.attacks.outputs import selected_output
from lightning_poison.attacks.robustness_curve import check_sweep
from lightning_poison.attacks.torchattacks_adapter import from_torchattacks
from lightning_poison.callbacks.accuracy.counts import AttackedSamples
from lightning_poison.callbacks.accuracy.round import TRIED, AttackRound
from lightning_poison.callbacks.accuracy.sections import attack_section, describe_attack, doubts
from lightning_poison.callbacks.base import Measurement, check_name
from lightning_poison.callbacks.natural_accuracy import NaturalAccuracies, other_function
from lightning_poison.callbacks.target_classes import TargetRule, checked_classes, target_in_words
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import as_list
from lightning_poison.functional.pixels import Radius
from lightning_poison.report import LoggedMetric, Section
from lightning_poison.report.logged_metric import DATA
from lightning_poison.trainer.evaluation import evaluation_loader, first_items, validation_batches
from lightning_poison.trainer.ranks import from_all_ranks

__all__ = ["AdversarialAccuracy"]


class AdversarialAccuracy(Measurement):
    """Accuracy of the victim on adversarial examples of the validation and test points.

    Each batch is attacked right after Lightning has validated it, so the data are read once and Lightning's own bar
    shows the progress. Every sample is counted once, also where a distributed sampler repeats some, and the counts
    of all ranks are added. Training is not touched: weights, gradients, buffers such as BatchNorm statistics, metrics
    inside the victim, what it logs, train/eval modes and the global random state stay as they are (a counter that is a
    plain attribute of the module does not). Only the first evaluation loader is measured. Where the last epoch of
    ``fit`` had no validation at its end, or was stopped early, the validation set is read once more.

    Logs ``{val,test}/adv_acc``, with ``_A_to_B`` or ``_to_B`` for a targeted attack and ``_NAME`` at the end.
    Untargeted it is the share of samples that keep their label under attack (a sample that is wrong anyway doesn't),
    targeted the share that isn't driven to the target. Of several attacks it is the worst case, the share that
    withstands every one; each one's share stands beside it, with the attack's name in lower case at the end
    (``adv_acc_pgd``, ``adv_acc_square``; of two with one name, with what tells them apart: ``adv_acc_pgd-l2``).
    A sweep adds ``_eps_R`` for each radius R (``adv_acc_eps_0.05``) and draws the curve in the report; an example
    found at a larger radius counts there if it can be cut back, so a value may lie below that of the attack alone.

    What is attacked is the module's ``forward``. Where the module logs an accuracy of its own (a key with ``acc`` and
    the stage's name) that is another than that of its forward on the same samples, a warning and the report say so:
    the step then does something beside ``forward``, such as a normalisation, that the attacks don't see.

    Where the victim's scores of the same inputs differ from pass to pass, "any iterate" would be the luckiest of many
    draws. Attacks then go their whole way, and one fresh evaluation of each final example counts, in a sweep at each
    radius, which is attacked on its own; of several attacks the worst case is one fresh evaluation of the example that
    fools in most of nine other passes. A warning and the report say so.

    An attack that has to learn of the victim beforehand gets inputs of the evaluated data set for it, which are then
    left out of the evaluation.

    Args:
        attack: one of ``lightning_poison.attacks``, or what makes an attack of torchattacks from a module (on the
            command line and in YAML its class path, such as ``torchattacks.AutoAttack``), or a list of them; None:
            ``PGD()``.
        source: class A; only samples with this label are attacked. Needs ``target``.
        target: class B that the attack steers to, "next" for the class after the label (the last one's is 0) or
            "least_likely" for the one with the lowest score; samples with this label are left out. None: untargeted.
        name: last part of the key, so that several of these callbacks can run side by side.
        every_n_epochs: measure after every n-th epoch of ``fit`` and after the last; None: only after the last.
        max_samples: measure only among so many samples, which are drawn with a fixed seed, class by class where the
            data set tells its labels: the same ones in every epoch and on any number of ranks. None: all.
        eps_sweep: radii in pixel units, increasing, at which to measure besides the attack's own.
        output: where the logits stand in what the victim's forward returns: a position in a tuple or a key of a
            dict; None: it returns them alone.

    Raises:
        UserError: an argument is out of its range, or two callbacks would log the same key.

    Example:
        >>> from lightning_poison.attacks import PGD
        >>> callback = AdversarialAccuracy(PGD(eps=8 / 255), source=1, target=7, name="small")
        >>> callback.key
        'adv_acc_1_to_7_small'
    """

    def __init__(
        self,
        attack: list[Attack | Callable[[nn.Module], ForeignAttack]]  # first: the parser takes the first that fits
        | Attack
        | Callable[[nn.Module], ForeignAttack]
        | None = None,
        source: int | None = None,
        target: TargetRule | None = None,
        name: str | None = None,
        every_n_epochs: int | None = 1,
        max_samples: int | None = None,
        eps_sweep: list[Radius] | None = None,
        output: int | str | None = None,
    ) -> None:
        super().__init__(every_n_epochs, max_samples)
        self._given = _given_attacks(attack)
        self.attack = self._given[0] if len(self._given) == 1 else self._given
        self.source, self.target = checked_classes(source, target)
        self.name = check_name(name)
        self.output = output
        self.eps_sweep = [] if eps_sweep is None else _checked_sweep(self._given, eps_sweep)
        self.history: list[AttackedSamples] = []
        self._latest: dict[str, AttackedSamples] = {}
        self._attacks: dict[str, Attack] = {}
        self._round: AttackRound | None = None
        self._compared = True  # with what the module logs of the same evaluation
        self._natural: list[NaturalAccuracies] = []  # of each rank, where every evaluated sample was counted
        self._other_function: dict[str, str] = {}
        self._said: set[str] = set()

    @property
    def key(self) -> str:
        """The logged key without its first part."""
        classes = [] if self.target is None else ["to", str(self.target)]
        if self.source is not None:
            classes.insert(0, str(self.source))
        return "_".join(["adv_acc", *classes, *([] if self.name is None else [self.name])])

    @property
    def keys(self) -> list[str]:
        """Every logged key without its first part, as far as the attacks are built: that happens in ``setup``."""
        each = [f"{self.key}_{name}" for name in self._attacks] if len(self._attacks) > 1 else []
        return [self.key, *each, *self._curve_keys()]

    @property
    def state_key(self) -> str:
        """Tells the states of several of these callbacks apart in a checkpoint."""
        attacks = [repr(attack) if isinstance(attack, Attack) else "torchattacks" for attack in self._given]
        return f"{type(self).__qualname__}({self.key}, {', '.join(attacks)})"

    def state_dict(self) -> dict[str, Any]:
        """The epochs of ``fit`` measured so far, in plain Python."""
        return {"history": [asdict(entry) for entry in self.history]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the history."""
        self.history = [AttackedSamples(**entry) for entry in state_dict["history"]]

    def forget(self) -> None:
        """Nothing was measured in this run."""
        super().forget()
        self.history, self._latest = [], {}
        self._compared, self._other_function, self._said, self._natural = True, {}, set(), []

    @property
    def compares_forward(self) -> bool:
        """Whether every evaluated sample is counted without an attack, and compared with what the module logs."""
        return self.max_samples is None and self.source is None and self.target is None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Build the attacks, so that their mistakes surface before any work."""
        super().setup(trainer, pl_module, stage)
        model = selected_output(pl_module, self.output)
        built = [attack if isinstance(attack, Attack) else from_torchattacks(attack, model) for attack in self._given]
        for attack in built if self.eps_sweep else []:
            check_sweep(attack, self.eps_sweep)
        self._attacks = dict(zip(_short_names(built), built, strict=True))
        self._round = AttackRound(
            self._attacks,
            key=self.key,
            source=self.source,
            target=self.target,
            max_samples=self.max_samples,
            radii=self.eps_sweep,
            output=self.output,
        )
        _check_keys([other for other in trainer.callbacks if isinstance(other, AdversarialAccuracy)])

    def try_out(self, trainer: Any, pl_module: Any) -> None:
        """Attack a few validation samples; the sanity check has not done so where it is switched off."""
        loader = evaluation_loader(trainer)
        if self._round is None or loader is None:
            return
        chosen = self._round.samples(trainer)
        batch = first_items(trainer, pl_module, loader, chosen.some(TRIED))
        if batch is not None:
            self._round.try_out(trainer, pl_module, batch)

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start from zero."""
        if self.is_due(trainer):
            self.attempt(trainer, lambda: self._begin(trainer, pl_module))
        elif self._round is not None and trainer.sanity_checking:
            self._round.samples(trainer)

    def on_test_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start from zero."""
        self._begin(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Attack the batch that has just been validated; in the sanity check, a few samples on trial."""
        if self._round is None or dataloader_idx != 0:
            return
        if self.is_due(trainer):
            self.attempt(trainer, lambda: self._measure(trainer, pl_module, batch), together=False)
        elif trainer.sanity_checking and batch_idx == 0:
            self._round.try_out(trainer, pl_module, batch)

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
        self._log(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the share."""
        self._log(trainer, pl_module)

    def measure_at_end(self, trainer: Any, pl_module: Any) -> None:
        """Read the validation set once more."""
        measured = False
        for batch in validation_batches(trainer, pl_module):
            if not measured:
                self._begin(trainer, pl_module)
            self._measure(trainer, pl_module, batch)
            measured = True
        if measured:
            self.log_at_end(trainer, self._finish(trainer, trainer.current_epoch - 1))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Compare with the accuracy that the module itself has logged."""
        self._compare(trainer)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Compare with the accuracy that the module itself has logged."""
        self._compare(trainer)

    def report_sections(self) -> list[Section]:
        """The last measurement of each split with its interval, and how it came about."""
        if not self._latest or not self._attacks:
            return []
        suffix = self.key.removeprefix("adv_acc").strip("_").replace("_", " ")
        title = f"Adversarial accuracy, {suffix}" if suffix else "Adversarial accuracy"
        latest = list(self._latest.values())
        words = self._in_words()
        return [
            attack_section(
                title,
                words,
                self.key,
                self._attacks,
                latest,
                self.history,
                self.eps_sweep,
                targeted=self.target is not None,
                remarks=list(self._other_function.values()),
            )
        ]

    def report_metrics(self) -> list[LoggedMetric]:
        """What the logged values mean, with what a reader of a split's numbers has to mind."""
        latest = [metric for metric in self._logged.values() if metric.split in self._latest]
        return [replace(metric, note=f"{metric.note}{self._doubt(metric.split)}") for metric in latest]

    def _described(self, split: str, shares: list[float]) -> list[LoggedMetric]:
        """The values under :attr:`keys` with their meaning."""
        words = [describe_attack(attack) for attack in self._attacks.values()]
        swept = [[describe_attack(one, radius) for one in self._attacks.values()] for radius in self.eps_sweep]
        worst = "the worst case of " if len(words) > 1 else ""
        aim = "" if self.target is None else f", aimed at {target_in_words(self.target)}"
        each = list(self._attacks) if len(words) > 1 else []
        notes = [worst + "; ".join(words), *(words if each else []), *(worst + "; ".join(one) for one in swept)]
        names: list[str | None] = [None, *each, *([None] * len(swept))]
        radii = [None] * (1 + len(each)) + list(self.eps_sweep)
        return [
            LoggedMetric(
                f"{split}/{key}",
                self._label(split, name, radius),
                "share",
                self._meaning(DATA[split]),
                share,
                higher_is_better=True,
                note=f"{note}{aim}",
                split=split,
                kind="adversarial" if self.target is None else "targeted",
                headline=key == self.key,
                series=self.key,
                radius=None if radius is None else float(radius),
            )
            for key, name, radius, note, share in zip(self.keys, names, radii, notes, shares, strict=True)
        ]

    def _label(self, split: str, attack: str | None, radius: float | None) -> str:
        target = str(self.target).replace("_", " ")
        steered = f"to {target}" if self.source is None else f"{self.source} to {target}"
        name = "_".join(filter(None, [self.name, attack]))
        parts = ["Adversarial accuracy", *([steered] if self.target is not None else []), *([name] if name else [])]
        return f"{', '.join(parts)}{'' if radius is None else f' at eps {radius:.4g}'} ({DATA[split]})"

    def _meaning(self, points: str) -> str:
        if self.target is None:
            return f"Share of {points} points classified correctly even after the attack changed their pixels."
        rule = isinstance(self.target, str)
        others = "points" if rule else "points of other classes"
        whose = others if self.source is None else f"points of class {self.source}"
        return f"Share of {points} {whose} that the attack cannot turn into {target_in_words(self.target)}."

    def _doubt(self, split: str) -> str:
        """What a reader of a split's numbers has to mind, to be put behind a note."""
        stochastic = "; the victim is stochastic, and each final example is evaluated afresh"
        other = self._other_function.get(split)
        return f"{stochastic if self._latest[split].stochastic else ''}{'' if other is None else f'; {other}'}"

    def _curve_keys(self) -> list[str]:
        return [f"{self.key}_eps_{radius:.4g}" for radius in self.eps_sweep]

    def _in_words(self) -> str:
        by = "attack" if len(self._attacks) == 1 else "each of the attacks"
        if self.target is None:
            return f"Share of the points that keep their label under {by}; points that are wrong anyway do not."
        whose = "points" if self.source is None else f"points of class {self.source}"
        by = "the attack does not drive" if len(self._attacks) == 1 else "no attack drives"
        return f"Share of the {whose} that {by} to {target_in_words(self.target)}."

    def _begin(self, trainer: Any, pl_module: Any) -> None:
        if self._round is not None:
            self._round.begin(trainer, pl_module)

    def _measure(self, trainer: Any, pl_module: Any, batch: Any) -> None:
        if self._round is not None:
            if not self._round.begun:  # at an epoch's start and end other callbacks may exchange the weights
                self.note_measured(trainer, pl_module)
            self._round.measure(trainer, pl_module, batch)

    def _log(self, trainer: Any, pl_module: Any) -> None:
        if self.is_due(trainer):
            values = self.attempt(trainer, lambda: self._finish(trainer, trainer.current_epoch))
            self.log_metrics(trainer, pl_module, values or [])

    def _compare(self, trainer: Any) -> None:
        """Warn where the module evaluates another function than its forward, which is what the attacks see."""
        if self._compared or self._round is None:
            return
        self._compared = True
        metrics = dict(trainer.callback_metrics)  # on every rank, as it may be computed now
        split = self.prefix(trainer)
        sentence = other_function(trainer, metrics, self._natural, stochastic=self._latest[split].stochastic)
        if sentence is not None:
            self._other_function[split] = sentence
            self._say_once(sentence, about=f"another function, {split}")

    def _say_once(self, sentence: str, about: str | None = None) -> None:
        """Warn, but not of the same thing after every epoch."""
        if (about or sentence) not in self._said:
            self._said.add(about or sentence)
            rank_zero_warn(f"{self.key}: {sentence}")

    def _finish(self, trainer: Any, epoch: int) -> list[LoggedMetric]:
        """The values to log; none where no sample was attacked."""
        if self._round is None:
            return []
        split = self.prefix(trainer)
        measured, self._attacks = self._round.measured(trainer, split, epoch), self._round.ready
        natural = self._round.natural
        self._natural = [] if natural is None else from_all_ranks(trainer, natural.on_cpu)
        if not measured.samples:
            rank_zero_warn(f"{self.key} was not measured: none of the evaluated samples has a class that is attacked")
            return []
        for sentence in doubts(measured):
            self._say_once(sentence)
        self._latest[split] = measured
        self._compared = not (trainer.validating or trainer.testing)
        self._other_function.pop(split, None)
        if trainer.state.fn == "fit":
            self.history = [entry for entry in self.history if entry.epoch != epoch] + [measured]
        counts = [measured.withstood, *(measured.each.values() if len(self._attacks) > 1 else []), *measured.curve]
        return self._described(split, [count / measured.samples for count in counts])


def _check_keys(callbacks: list[AdversarialAccuracy]) -> None:
    """Refuse callbacks that log the same key."""
    owners = Counter(key for callback in callbacks for key in dict.fromkeys(callback.keys))
    shared = next((key for key, count in owners.items() if count > 1), None)
    if shared is not None:
        raise UserError(f"{owners[shared]} AdversarialAccuracy callbacks log {shared}; give each its own name")


# --- attacks and radii as a user may give them ------------------------------------------------------------------------


def _given_attacks(attack: Any) -> list[Any]:
    """The attacks that ``attack`` stands for: itself, those of a list, or ``PGD()`` for None.

    Raises:
        UserError: there is none, one is none, or one is there twice.

    Example:
        >>> _given_attacks([PGD(0.1), PGD(0.1)])
        Traceback (most recent call last):
        ...
        lightning_poison.errors.UserError: attack must not list one twice, got two equal PGD; leave one out
    """
    given = as_list(attack)
    attacks = [PGD()] if attack is None else [attack] if given is None else given
    if not attacks:
        raise UserError("attack must name at least one attack, got an empty list; write PGD(), or leave attack out")
    for entry in attacks:
        if isinstance(entry, type) and issubclass(entry, Attack):
            raise UserError(f"attack must be an attack, got the class {entry.__name__}; write {entry.__name__}()")
        if not callable(entry):
            raise UserError(f"attack must be an attack such as PGD(eps=0.1), got {entry!r}")
    for place, entry in enumerate(attacks):
        if any(_are_equal(entry, other) for other in attacks[:place]):
            name = getattr(entry, "func", type(entry)).__name__
            raise UserError(f"attack must not list one twice, got two equal {name}; leave one out")
    return attacks


def _are_equal(attack: Any, other: Any) -> bool:
    if isinstance(attack, partial) and isinstance(other, partial):
        return (attack.func, attack.args, attack.keywords) == (other.func, other.args, other.keywords)
    return bool(attack == other)


def _checked_sweep(attacks: list[Any], radii: Any) -> list[float]:
    """The radii of a sweep with ``attacks``, in pixel units; what makes an attack is asked once it is made.

    Raises:
        UserError: an attack has no radius to set, the norms differ, or the radii do not increase.

    Example:
        >>> _checked_sweep([PGD()], [0.1, "51/255"])
        [0.1, 0.2]
    """
    for attack in attacks:
        if isinstance(attack, Attack):  # the others are checked once they are built
            radii = check_sweep(attack, radii)[1]
    norms = sorted({str(attack.norm) for attack in attacks if isinstance(attack, Attack)})
    if len(norms) > 1:
        raise UserError(f"eps_sweep needs attacks of one norm, got {', '.join(norms)}; use one callback for each norm")
    return list(radii)


# --- short names ------------------------------------------------------------------------------------------------------


def _short_names(attacks: Sequence[Attack]) -> list[str]:
    """A name in lower case for each attack; where two share one, with the norm, radius or library that differs.

    Example:
        >>> from lightning_poison.attacks import FGSM, PGD
        >>> _short_names([PGD(), FGSM()]), _short_names([PGD(), PGD(norm="l2")]), _short_names([PGD(), PGD(restarts=2)])
        (['pgd', 'fgsm'], ['pgd-linf', 'pgd-l2'], ['pgd', 'pgd-2'])
        >>> _short_names([PGD(0.1), PGD(0.2), FGSM()])
        ['pgd-0.1', 'pgd-0.2', 'fgsm']
    """
    names = [_slug(attack.name.rpartition(".")[2]) for attack in attacks]
    for name in [name for name, count in Counter(names).items() if count > 1]:
        rows = [row for row, other in enumerate(names) if other == name]
        for row, apart in zip(rows, _apart(name, [attacks[row] for row in rows]), strict=True):
            names[row] = apart
    seen: Counter[str] = Counter()
    for row, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[row] = f"{name}-{seen[name]}"
    return names


def _apart(name: str, attacks: Sequence[Attack]) -> list[str]:
    """The names with the first property in which all of them differ, or as they are."""
    properties: tuple[Callable[[Attack], str], ...] = (
        lambda attack: f"{name}-{attack.norm}",
        lambda attack: f"{name}-{attack.eps:g}",
        lambda attack: f"{name}-{attack.norm}-{attack.eps:g}",
        lambda attack: _slug(attack.name),
        lambda attack: f"{_slug(attack.name)}-{attack.norm}-{attack.eps:g}",
    )
    for words in properties:
        told = [words(attack) for attack in attacks]
        if len(set(told)) == len(told):
            return told
    return [name] * len(attacks)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
