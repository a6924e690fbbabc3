"""An experiment: strategies against kinds of victims over seeds, with paired runs that go on where they stopped."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule

from lightning_poison.attacks import PGD, Attack
from lightning_poison.ensembles import TrainedNetwork, train_networks
from lightning_poison.errors import UserError
from lightning_poison.experiments.crafting import FlipLists
from lightning_poison.experiments.description import plain
from lightning_poison.experiments.evaluation import Evaluation, TargetClass
from lightning_poison.experiments.folder import ExperimentFolder, Run, RunResult, RunStore
from lightning_poison.experiments.outcome import Outcome
from lightning_poison.experiments.plan import Plan, VictimPlan, check_kinds
from lightning_poison.experiments.side_by_side import Ticker, side_by_side
from lightning_poison.experiments.subject import Subject
from lightning_poison.functional.checks import (
    as_integer,
    as_list,
    check_choice,
    check_integer,
    check_integer_field,
    check_kind,
    nearest_names,
)
from lightning_poison.functional.pixels import Radius
from lightning_poison.functional.progress import Progress, show_progress
from lightning_poison.functional.random_streams import isolated_run
from lightning_poison.poisons import LabelFlips, Poison

__all__ = ["Experiment"]

_FAILED = 2.0  # times the loss of guessing: above it training has failed


@dataclass(frozen=True)
class Experiment:
    """Strategies of choosing flips against kinds of victims, several seeds each.

    A run is one victim: trained on the labels that one strategy has flipped, then attacked on clean test points. Runs
    of one seed are paired: victims of a kind start from the same weights and see the points in the same order, whatever
    the strategy (a class that only one strategy adds gives its victims a wider last layer; the layers before it still
    start alike if the network makes them first).

    Flip lists and finished runs stay in the folder, so that an experiment that was interrupted goes on, and nothing is
    done twice: not with more seeds, not with another strategy beside the others.

    Args:
        data: any LightningDataModule with training and test data, inputs in [0, 1].
        strategies: what chooses the flips, by name; null: no flips.
        victims: networks and how they are trained, by name.
        attack: run at each of ``eps`` in place of its own radius; ``PGD`` takes the worst case over its losses.
        eps: radii in pixel units.
        source: class A: only test points of A are attacked. Needs ``target``.
        target: class B that they are steered to, or "next" for the class after the label; null: untargeted.
        max_test_samples: how many test points are attacked, drawn once and for all; null: all.
        seeds: how many, counted from 0, or which. A seed decides initial weights, order of the points and flips.
        flip_seed: decides the flips of every run in place of its seed.
        baseline: the strategy that others are compared with.
        folder: where lists, runs, tables and figures are kept.
        title: of the table.
        note: a sentence for below the table.
        figure: "points": differences from the baseline; "curve": accuracy from strategy to strategy.
        jobs: processes that train side by side; -1: one for each core, and one alone on a GPU. The backend of joblib
            is the caller's choice (``joblib.parallel_config``).
        device: where to train and to attack: "cpu", "cuda", ...
        method: "sequential": each victim for itself; "vmapped": those of one kind and seed as one stack of weights;
            "auto": the faster on the device. The same training but for the order of sums, whose differences grow with
            the epochs to those of another draw; finished runs are kept when it is changed.

    Raises:
        UserError: an argument is out of range, or a name is not among those it must be of.
    """

    data: LightningDataModule
    strategies: dict[str, LabelFlips | Poison | None]
    victims: dict[str, VictimPlan]
    attack: Attack = field(default_factory=PGD)
    eps: list[Radius] = field(default_factory=lambda: [Radius(0.1)])
    source: int | None = None
    target: TargetClass | None = None
    max_test_samples: int | None = None
    seeds: int | list[int] = 5
    flip_seed: int | None = None
    baseline: str = "random"
    folder: str = "runs/experiment"
    title: str = ""
    note: str = ""
    figure: Literal["points", "curve"] = "points"
    jobs: int = -1
    device: str = "cpu"
    method: Literal["auto", "sequential", "vmapped"] = "auto"

    def __post_init__(self) -> None:
        check_kinds(self.data, self.strategies, self.victims, self.attack, self.eps)
        if self.baseline not in self.strategies:
            near = nearest_names(str(self.baseline), self.strategies)
            hint = f"; did you mean {near[0]}?" if near else "; name one: --baseline NAME"
            raise UserError(f"baseline must be one of {', '.join(self.strategies)}, got {self.baseline}{hint}")
        check_choice("figure", self.figure, ("points", "curve"))
        jobs = as_integer(self.jobs)
        if jobs is None or jobs == 0 or jobs < -1:
            raise UserError(f"jobs must be a number of processes, or -1 for one a core, got {self.jobs}")
        object.__setattr__(self, "jobs", jobs)
        check_choice("method", self.method, ("auto", "sequential", "vmapped"))
        check_kind("device", self.device, str, "'cpu'")
        if not isinstance(self.folder, (str, Path)):
            raise UserError(f"folder must be a path such as 'runs/experiment', got {self.folder!r}")
        _check_device(self.device)
        if self.flip_seed is not None:
            check_integer_field(self, "flip_seed", minimum=0)
        _ = self._seeds, self._evaluation

    def run(self, progress: Progress = show_progress) -> Outcome:
        """Do what is not done yet, and write tables and figures.

        Args:
            progress: shows how far the whole is, with the time left.

        Raises:
            UserError: data, strategies, victims and folder do not fit each other, or another process has replaced
                finished runs.
        """
        folder = ExperimentFolder(Path(self.folder)).check()
        subject = Subject.of(self.data, progress)
        lists = FlipLists(folder.flips, subject, self.strategies)
        plan = Plan(subject, lists, self.victims, self._evaluation, self._seeds, self.flip_seed)
        plan.check()
        folder.claim(subject.digest, self._description())
        lists.craft(self._seeds if self.flip_seed is None else [self.flip_seed], self._jobs, progress)
        self._train(plan, folder, progress)
        store = RunStore(folder.runs)
        results = [result for run in plan.runs if (result := store.result_of(run)) is not None]
        if len(results) < len(plan.runs):
            raise UserError(
                f"{len(plan.runs) - len(results)} finished runs in {folder.runs} were replaced meanwhile; "
                "run this again when no other experiment with other extra_epochs works there"
            )
        measured = self._evaluation.in_words(len(self._evaluation.rows(subject)))
        planned = {name: victim.recipe.epochs for name, victim in self.victims.items()}
        outcome = Outcome(results, self.baseline, measured, self.title, self.note, self.figure, plan.fixed, planned)
        outcome.write(folder.path)
        return outcome

    def _train(self, plan: Plan, folder: ExperimentFolder, progress: Progress) -> None:
        store = RunStore(folder.runs)
        missing = [run for run in plan.runs if store.result_of(run) is None]
        groups = plan.groups(missing, plan.stacked(self.method, self.device))
        steps = plan.shares(missing)
        shared = plan.subject, plan.evaluation, folder.runs, self.method, self.device
        pieces = [(group, self.victims[group[0].victim], *shared, steps[group[0].victim]) for group in groups]
        description = f"training {len(missing)} victims, per cent"
        side_by_side(_train_and_measure, pieces, self._jobs, folder.path, description, 100, progress)

    @property
    def _jobs(self) -> int:
        return 1 if self.jobs == -1 and self.device.startswith("cuda") else self.jobs

    @property
    def _seeds(self) -> list[int]:
        if as_integer(self.seeds) is not None or isinstance(self.seeds, bool):
            return list(range(check_integer("seeds", self.seeds, minimum=1, remedy="give how many, or a list")))  # type: ignore[arg-type]  # no list
        given = as_list(self.seeds)
        if given is None:
            raise UserError(f"seeds must be a number or a list of them, got {self.seeds!r}; write 5 or [0, 1, 2]")
        seeds = [check_integer("seeds", seed, minimum=0) for seed in given]
        if not seeds or len(set(seeds)) < len(seeds):
            raise UserError(f"seeds must be a number or different ones, got {seeds}; write 5 or [0, 1, 2]")
        return seeds

    @property
    def _evaluation(self) -> Evaluation:
        return Evaluation(self.attack, tuple(self.eps), self.source, self.target, self.max_test_samples)

    def _description(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "data": type(self.data).__name__,
            "strategies": plain(self.strategies),
            "victims": {name: plain(victim) for name, victim in self.victims.items()},
            "evaluation": plain(self._evaluation),
            "seeds": self._seeds,
            "baseline": self.baseline,
        }


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"device must be one of this machine, got {device} ({reason}); --device cpu always works"
        ) from error


# --- training and measuring -------------------------------------------------------------------------------------------


def _train_and_measure(
    ticker: Ticker,
    runs: list[Run],
    plan: VictimPlan,
    subject: Subject,
    evaluation: Evaluation,
    folder: Path,
    method: str,
    device: str,
    steps: tuple[float, float],
) -> None:
    """Make the results of runs that share victim, seed and number of classes, and keep them.

    All start from the same weights and see the points in the same order: they differ by the flipped labels only.

    Args:
        ticker: is told how far this is.
        runs: what to do.
        plan: how a victim is made.
        subject: the data.
        evaluation: how victims are measured.
        folder: of the finished runs.
        method: of training several networks.
        device: where to train and to measure.
        steps: how much of the progress an epoch and a measurement are.
    """
    store = RunStore(folder)
    missing = [run for run in runs if store.result_of(run) is None]  # another process may have been faster
    ticker.advance((len(runs) - len(missing)) * (plan.recipe.epochs * steps[0] + steps[1]))
    if not missing:
        return
    with isolated_run(missing[0].seed):
        started = time.monotonic()
        trained = _train(ticker, missing, plan, subject, method, device, steps[0])
        share = (time.monotonic() - started) / len(missing)
        for run, victim in zip(missing, trained, strict=True):
            store.keep(run, _measured(run, victim, subject, evaluation, device, share))
            ticker.advance(steps[1])


def _measured(
    run: Run, victim: TrainedNetwork, subject: Subject, evaluation: Evaluation, device: str, trained_for: float
) -> RunResult:
    started = time.monotonic()
    measured: dict[str, Any] = {"natural": math.nan, "attacked": 0, "withstood": dict.fromkeys(evaluation.names, 0)}
    succeeded = victim.loss <= _FAILED * math.log(run.num_classes)  # false for NaN
    if succeeded:
        measured = evaluation.measure(victim.module, subject, device)
    return RunResult(
        strategy=run.strategy,
        victim=run.victim,
        seed=run.seed,
        flips=len(run.flips),
        fitted=victim.fitted,
        epochs=victim.epochs,
        loss=victim.loss if succeeded else math.nan,
        seconds=round(trained_for + time.monotonic() - started, 3),
        **measured,
    )


def _train(
    ticker: Ticker,
    runs: list[Run],
    plan: VictimPlan,
    subject: Subject,
    method: str,
    device: str,
    step: float,
) -> list[TrainedNetwork]:
    labels = torch.stack([run.flips.apply(subject.labels) for run in runs])
    watched = labels != subject.labels
    left = len(runs) * plan.recipe.epochs

    def advance(epochs: int) -> None:
        nonlocal left
        ticker.advance(min(epochs, left) * step)  # extra epochs come on top
        left -= min(epochs, left)

    return train_networks(
        plan.net,
        subject.inputs,
        labels,
        runs[0].num_classes,
        [run.seed for run in runs],
        plan.recipe,
        order_seed=runs[0].seed,
        watched=watched,
        method=method,
        device=device,
        advance=advance,
    )
