"""The same seed gives the same list on every machine: one file for each strategy, made once and never again."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from lightning_poison.poisons import FlipList, Poison, PoisonPoints, TrainingSet

FOLDER = Path(__file__).parent / "golden"


def golden_data(points: int = 600) -> TrainingSet:
    """The first scikit-learn digits, shape (points, 1, 8, 8), pixels in [0, 1]."""
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images[:points], dtype=torch.float32).view(-1, 1, 8, 8) / 16
    targets = torch.tensor(labels[:points], dtype=torch.int64)
    return TrainingSet(targets, 10, fingerprint="golden", dataset=TensorDataset(inputs, targets))


def check_golden(name: str, poison: Poison, training_set: TrainingSet | None = None) -> None:
    """Compare the flips of seed 0 with ``golden/<name>.csv``; a missing file is written and the test fails once."""
    flips = poison.craft(training_set or golden_data(), seed=0)
    path = FOLDER / f"{name}.csv"
    _write_if_missing(flips, path)
    assert flips.same_flips(FlipList.read(str(path))), f"{name} no longer gives the flips of {path}"


def check_golden_points(name: str, points: PoisonPoints, atol: float) -> PoisonPoints:
    """Compare points, their inputs but for ``atol``, with ``golden/<name>.pt``, which is returned."""
    path = FOLDER / f"{name}.pt"
    _write_if_missing(points, path)
    recorded = PoisonPoints.read(path)
    for column in ("index", "old_label", "new_label"):
        assert torch.equal(getattr(points, column), getattr(recorded, column)), f"{column} of {path}"
    assert torch.allclose(points.inputs, recorded.inputs, atol=atol), f"inputs of {path}"
    return recorded


def _write_if_missing(poisons: FlipList | PoisonPoints, path: Path) -> None:
    if not path.exists():
        poisons.write(path)
        raise AssertionError(f"{path} was missing and has been written; look at it, then run the test again")


def nearest_mean_network(data: TrainingSet) -> nn.Module:
    """Linear: the score is minus half the squared distance to a class mean, its weights multiples of 1/64."""
    inputs = data.inputs.flatten(1).double()
    means = torch.stack([inputs[data.labels == label].mean(dim=0) for label in range(data.num_classes)])
    means = (means * 64).round() / 64
    head = nn.Linear(inputs.shape[1], data.num_classes)
    head.load_state_dict({"weight": means.float(), "bias": (-means.square().sum(dim=1) / 2).float()})
    return nn.Sequential(nn.Flatten(), head).eval().requires_grad_(False)
