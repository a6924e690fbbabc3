"""Small experiments that take a second."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from lightning_poison.attacks import PGD
from lightning_poison.datamodules import Digits
from lightning_poison.ensembles import TrainingRecipe
from lightning_poison.experiments import Experiment, VictimPlan
from lightning_poison.functional.progress import no_progress
from lightning_poison.nets import MLP
from lightning_poison.poisons import LabelFlips, NewClass, RandomPoints

SMALL = partial(MLP, image_size=8, hidden=(16,))
RECIPE = TrainingRecipe(epochs=4, lr=1e-2, batch_size=32)
FOUR_SEEDS = {"seeds": 4, "victims": {"MLP": VictimPlan(SMALL, TrainingRecipe(epochs=40, batch_size=8))}}


def experiment(folder: Path, **more: Any) -> Experiment:
    """Random flips and a clean run, two seeds, one small network on three digits."""
    arguments: dict[str, Any] = {
        "data": Digits(classes=[0, 1, 2], max_samples=120, val_split=0.0),
        "strategies": {"clean": None, "random": LabelFlips(RandomPoints(per_class=1))},
        "victims": {"MLP": VictimPlan(SMALL, RECIPE)},
        "attack": PGD(steps=3),
        "eps": [0.05, 0.2],
        "seeds": 2,
        "max_test_samples": 40,
        "folder": str(folder),
        "jobs": 1,
    }
    return Experiment(**{**arguments, **more})


def run(folder: Path, **more: Any) -> list[Any]:
    """The results of a small experiment, with the time taken out."""
    return results_of(experiment(folder, **more).run(no_progress))


def results_of(outcome: Any) -> list[Any]:
    """All that decides a run and all that came out of it, as text."""
    fields = ("strategy", "victim", "seed", "flips", "fitted", "epochs", "loss", "natural", "attacked", "withstood")
    return [repr([getattr(result, name) for name in fields]) for result in outcome.results]


NEW_CLASS = LabelFlips(RandomPoints(per_class=1), NewClass())
