"""Victims of one kind and one seed, trained together on the labels of several strategies, and measured."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch

from lightning_poison.ensembles import TrainedNetwork, train_networks
from lightning_poison.experiments.evaluation import Evaluation
from lightning_poison.experiments.runs import Run, RunResult, RunStore
from lightning_poison.experiments.side_by_side import Ticker
from lightning_poison.experiments.subject import Subject
from lightning_poison.experiments.victim_plan import VictimPlan
from lightning_poison.functional.isolation import isolated_run

__all__ = ["train_and_measure"]

_FAILED = 2.0  # times the loss of guessing


def train_and_measure(
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
