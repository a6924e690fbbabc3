"""Several victims trained as one stack of weights, or side by side, against one after the other."""

from __future__ import annotations

import time
from functools import partial

import joblib
import torch

from benchmarks.runner import Row, median_ratio, paired_seconds, row
from benchmarks.subject import banded_images
from lightning_poison.ensembles import TrainingRecipe, train_networks
from lightning_poison.nets import MLP, DeepCNN, PoolCNN, StrideCNN

__all__ = ["run"]

POINTS, MEMBERS, GPU_MEMBERS, EPOCHS = 2000, 8, 32, 2
NETS = {"StrideCNN": StrideCNN, "DeepCNN": DeepCNN, "PoolCNN": PoolCNN, "MLP": MLP}
TARGET, GPU_TARGET, PROCESSES_TARGET = 1 / 1.5, 1 / 8, 0.75


def run() -> list[Row]:
    """Two epochs of 2,000 images of 28x28, initial weights and checks included.

    On a CPU only ``StrideCNN`` is stacked by itself, as the others gain nothing.
    """
    rows = [_stacked("StrideCNN", "cpu", MEMBERS, TARGET)]
    if joblib.cpu_count() > 1:
        rows.append(_processes())
    if torch.cuda.is_available():
        rows += [_stacked(name, "cuda", GPU_MEMBERS, GPU_TARGET) for name in NETS]
    return rows


def _training(name: str, device: str, members: int, method: str) -> partial[object]:
    images, labels = banded_images(POINTS, seed=0)
    recipe, seeds = TrainingRecipe(epochs=EPOCHS), list(range(members))
    return partial(train_networks, NETS[name], images, labels, 10, seeds, recipe, method=method, device=device)


def _stacked(name: str, device: str, members: int, target: float) -> Row:
    together, apart = paired_seconds(*(_training(name, device, members, method) for method in ("auto", "sequential")))
    speed = members * POINTS * EPOCHS / min(together)
    subject = f"{members} {name} on {device} as a stack ({speed:,.0f} images/s)"
    return row("flips_ensembles", subject, "sequential", median_ratio(together, apart), target)


def _processes() -> Row:
    """The processes are started before, as they serve every later training."""
    aside, apart = (_training("PoolCNN", "cpu", 4, method) for method in ("processes", "sequential"))
    begun = time.perf_counter()
    aside()
    started = time.perf_counter() - begun
    seconds = paired_seconds(aside, apart, rounds=2, warmup=0)
    subject = f"4 PoolCNN on {joblib.cpu_count()} processes ({started:.0f} s the first time)"
    return row("flips_ensembles", subject, "sequential", median_ratio(*seconds), PROCESSES_TARGET)
