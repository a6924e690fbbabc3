"""Which kinds of victims and runs an experiment consists of, and which of them are trained together."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from lightning_poison.attacks import Attack
from lightning_poison.ensembles import TrainingRecipe
from lightning_poison.ensembles.stacked import stacking_pays
from lightning_poison.errors import UserError
from lightning_poison.experiments.crafting import FlipLists
from lightning_poison.experiments.description import describe_net, digest, plain, tensor_digest
from lightning_poison.experiments.evaluation import Evaluation
from lightning_poison.experiments.folder import Run
from lightning_poison.experiments.subject import Subject
from lightning_poison.functional.checks import as_list, kind_shown
from lightning_poison.functional.random_streams import kept_random_state
from lightning_poison.nets import SmallNet
from lightning_poison.nets.building import build_net
from lightning_poison.poisons import Poison, Selector
from lightning_poison.poisons.description import describe
from lightning_poison.poisons.points import PointPoison

__all__ = ["Plan", "VictimPlan", "check_kinds"]

VERSION = 1
"""Of the way from settings to numbers; a change of it repeats every run."""
_STACK = 16  # networks: larger stacks gain little on a CPU, and what is interrupted is lost


@dataclass(frozen=True)
class VictimPlan:
    """A network and how it is trained.

    Args:
        net: makes the network when called with ``num_classes=K``; it takes inputs in [0, 1].
        recipe: how it is trained; ``extra_epochs`` are for runs that have not fitted their flips by then.

    Raises:
        UserError: ``net`` makes no network, or the recipe is none.

    Example:
        >>> from functools import partial
        >>> from lightning_poison.nets import MLP
        >>> VictimPlan(partial(MLP, image_size=8), TrainingRecipe(epochs=30)).recipe.epochs
        30
    """

    net: Callable[[int], SmallNet] | Callable[[int], nn.Module]
    recipe: TrainingRecipe = field(default_factory=TrainingRecipe)

    def __post_init__(self) -> None:
        if isinstance(self.net, nn.Module):
            raise UserError(
                f"net must be a function that makes a network, got a {type(self.net).__name__}; "
                "each victim needs one of its own: pass its class or a function"
            )
        if not callable(self.net):
            raise UserError(f"net must be a class or a function that makes a network, got {self.net!r}")
        if not isinstance(self.recipe, TrainingRecipe):
            raise UserError(f"recipe must be a TrainingRecipe, got {self.recipe!r}; write TrainingRecipe(epochs=30)")


@dataclass(frozen=True, eq=False)
class Plan:
    """The runs of an experiment whose flips have been crafted.

    Args:
        subject: the data.
        lists: the flips.
        victims: kinds of victims by name.
        evaluation: how victims are measured.
        seeds: of the runs.
        flip_seed: of the flips of every run; None: the run's own.
    """

    subject: Subject
    lists: FlipLists
    victims: Mapping[str, VictimPlan]
    evaluation: Evaluation
    seeds: Sequence[int]
    flip_seed: int | None = None

    @cached_property
    def runs(self) -> list[Run]:
        """Every run, strategy by strategy within seed within victim."""
        lists = {}
        for name in self.lists.strategies:
            for seed in dict.fromkeys(map(self._flips_of, self.seeds)):
                lists[name, seed] = self.lists.of(name, seed)
        return [
            Run(
                strategy=strategy,
                victim=victim,
                seed=seed,
                flips=(flips := lists[strategy, self._flips_of(seed)]),
                num_classes=(classes := self._num_classes(strategy)),
                epochs=(plan.recipe.epochs, plan.recipe.epochs + plan.recipe.extra_epochs * bool(len(flips))),
                settings={
                    "version": VERSION,
                    "data": self.subject.digest,
                    "flips": tensor_digest(flips.index, flips.new_label),
                    "num_classes": classes,
                    "net": self._nets[victim, classes],
                    "recipe": plain(dataclasses.replace(plan.recipe, extra_epochs=0)),
                    "seed": seed,
                    "evaluation": plain(self.evaluation),
                },
            )
            for victim, plan in self.victims.items()
            for seed in self.seeds
            for strategy in self.lists.strategies
        ]

    @property
    def fixed(self) -> list[str]:
        """The strategies that flip the same points, and some, in every seed, where there are several."""
        lists: dict[str, set[str]] = {}
        for run in self.runs:
            lists.setdefault(run.strategy, set()).add(run.settings["flips"])
        flipping = {run.strategy for run in self.runs if len(run.flips)}
        return [name for name, each in lists.items() if name in flipping and len(each) == 1 < len(self.seeds)]

    def check(self) -> None:
        """Refuse what would be refused after hours.

        Raises:
            UserError: victims, strategies, classes and data do not fit each other.
        """
        self.evaluation.rows(self.subject)
        training_set = self.subject.training_set()
        for name, poison in self.lists.strategies.items():
            if poison is not None:
                try:
                    poison.check(training_set, self._flips_of(self.seeds[0]))
                    if isinstance(poison, PointPoison):
                        raise UserError(
                            f"{describe(poison)} makes inputs, which a flip list cannot hold; use LabelFlips here"
                        )
                except UserError as error:
                    raise UserError(f"strategy {name}: {error}") from error
        _ = self._nets

    def groups(self, runs: Sequence[Run], stacked: Container[str]) -> list[list[Run]]:
        """Runs that are trained together, seed by seed, those that take long first.

        Args:
            runs: all that are to be made.
            stacked: the victims of which networks of one seed and number of classes are trained as one; of the others
                each is for itself, and is kept as soon as it is finished.
        """
        shares = self.shares(runs)
        together: dict[Any, list[Run]] = {}
        for run in runs:
            kind = (run.victim, run.seed, run.num_classes)
            together.setdefault(kind if run.victim in stacked else (*kind, run.strategy), []).append(run)
        groups = [group[at : at + _STACK] for group in together.values() for at in range(0, len(group), _STACK)]
        return sorted(groups, key=lambda group: (self.seeds.index(group[0].seed), -shares[group[0].victim][0]))

    def stacked(self, method: str, device: str) -> set[str]:
        """The victims whose networks are trained as one stack."""
        if method != "auto":
            return set(self.victims) if method == "vmapped" else set()
        return {name for name in self.victims if stacking_pays(self._module(name), device)}

    def shares(self, runs: Sequence[Run]) -> dict[str, tuple[float, float]]:
        """For each victim, about how many per cent of the time of all runs an epoch and a measurement take."""
        times = {name: self._times[name] for name in {run.victim for run in runs}}
        whole = sum(
            self.victims[run.victim].recipe.epochs * times[run.victim][0] + times[run.victim][1] for run in runs
        )
        return {name: (100 * epoch / whole, 100 * measurement / whole) for name, (epoch, measurement) in times.items()}

    def _flips_of(self, seed: int) -> int:
        return seed if self.flip_seed is None else self.flip_seed

    def _num_classes(self, strategy: str) -> int:
        poison, clean = self.lists.strategies[strategy], self.subject.num_classes
        return clean if poison is None else poison.num_classes_after(clean)

    @cached_property
    def _nets(self) -> dict[tuple[str, int], str]:
        classes = {self._num_classes(strategy) for strategy in self.lists.strategies}
        return {(name, count): self._net(name, count) for name in self.victims for count in classes}

    def _net(self, name: str, num_classes: int) -> str:
        sample = self.subject.test_inputs[:1]
        try:
            description = describe_net(self.victims[name].net, num_classes, sample)
        except UserError as error:
            raise UserError(f"victim {name}: {error}") from error
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"victim {name} cannot take inputs of shape {tuple(sample.shape[1:])} ({reason}); "
                "give it the size of the data, as in in_channels=3, image_size=32 for 32 x 32 colour images"
            ) from error
        if len(description["answer"]) != num_classes:
            got = len(description["answer"])
            raise UserError(
                f"victim {name} must give {num_classes} logits, got {got}; its net is called with num_classes"
            )
        return digest(description)

    @cached_property
    def _times(self) -> dict[str, tuple[float, float]]:
        return {name: self._time(name) for name in self.victims}

    def _module(self, name: str) -> nn.Module:
        with kept_random_state(0):
            return build_net(self.victims[name].net, self.subject.num_classes)

    def _time(self, name: str) -> tuple[float, float]:
        plan = self.victims[name]
        net = self._module(name)
        batch = self.subject.inputs[: plan.recipe.batch_size]
        labels = self.subject.labels[: len(batch)]
        times = []
        with kept_random_state(0):
            for _ in range(3):
                started = time.perf_counter()
                nn.functional.cross_entropy(net(batch), labels).backward()  # type: ignore[no-untyped-call]  # torch's
                times.append(time.perf_counter() - started)
        a_point = min(times) / len(batch)
        attacked, attack = len(self.evaluation.rows(self.subject)), self.evaluation.attack
        looks = getattr(attack, "steps", 1) * max(len(getattr(attack, "losses", ())), 1) / 2  # about half stop early
        return a_point * len(self.subject.inputs), a_point * attacked * looks * len(self.evaluation.eps)


# --- kinds of arguments -----------------------------------------------------------------------------------------------


def check_kinds(data: Any, strategies: Any, victims: Any, attack: Any, eps: Any) -> None:
    """Refuse what would end in a traceback later.

    Args:
        data: should be a LightningDataModule of either package.
        strategies: should map names to poisons or None.
        victims: should map names to victim plans.
        attack: should be an attack.
        eps: should be several numbers.

    Raises:
        UserError: one is of another kind.

    Example:
        >>> check_kinds(object(), {}, {}, None, [])
        Traceback (most recent call last):
        lightning_poison.errors.UserError: data must be a LightningDataModule, got object; write Digits() or your own
    """
    if isinstance(data, type) or not callable(getattr(data, "train_dataloader", None)):
        raise UserError(f"data must be a LightningDataModule, got {kind_shown(data)}; write Digits() or your own")
    _check_names("strategies", strategies, "LabelFlips(RandomPoints())")
    _check_names("victims", victims, "VictimPlan(StrideCNN)")
    for name, poison in strategies.items():
        if poison is not None and not isinstance(poison, Poison):
            shown = kind_shown(poison)
            remedy = f"LabelFlips({shown}(...))" if isinstance(poison, Selector) else "LabelFlips(RandomPoints())"
            raise UserError(f"strategy {name} must be a poison, or null for clean labels, got {shown}; write {remedy}")
    for name, plan in victims.items():
        if not isinstance(plan, VictimPlan):
            shown = kind_shown(plan)
            raise UserError(f"victim {name} must be a VictimPlan, got {shown}; write VictimPlan(net, recipe)")
    if not isinstance(attack, Attack):
        raise UserError(f"attack must be an attack, got {kind_shown(attack)}; write PGD(), or leave it out")
    if as_list(eps) is None:
        raise UserError(f"eps must be a list of radii, got {eps!r}; write [0.1]")


def _check_names(argument: str, given: Any, example: str) -> None:
    if not isinstance(given, Mapping):
        raise UserError(f"{argument} must map names to them, got {kind_shown(given)}; write {{'name': {example}}}")
    if not given:
        raise UserError(f"{argument} must name at least one, got none; write them as NAME: ...")
    for name in given:
        if not isinstance(name, str) or not name.strip() or "|" in name or "\n" in name:
            raise UserError(
                f"names of {argument} must be texts without bars and line breaks, got {name!r}; put it in quotes"
            )
