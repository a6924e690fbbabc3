"""The same seed gives the same list on every machine: one file for each strategy, made once and never again."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from lightning_poison.poisons import FlipList, Poison, TrainingSet

FOLDER = Path(__file__).parent / "golden"


def golden_data(points: int = 600) -> TrainingSet:
    """The first scikit-learn digits, shape (points, 1, 8, 8), pixels in [0, 1]."""
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images[:points], dtype=torch.float32).view(-1, 1, 8, 8) / 16
    targets = torch.tensor(labels[:points], dtype=torch.int64)
    return TrainingSet(targets, 10, fingerprint="golden", dataset=TensorDataset(inputs, targets))


def check_golden(name: str, poison: Poison, training_set: TrainingSet | None = None) -> None:
    """Compare the flips of seed 0 with ``golden/<name>.csv``; a missing file is written and the test fails once."""
    flips = poison.flips(training_set or golden_data(), seed=0)
    path = FOLDER / f"{name}.csv"
    if not path.exists():
        flips.write(path)
        raise AssertionError(f"{path} was missing and has been written; look at it, then run the test again")
    assert flips.same_flips(FlipList.read(str(path))), f"{name} no longer gives the flips of {path}"


def nearest_mean_network(data: TrainingSet) -> nn.Module:
    """Linear: the score is minus half the squared distance to a class mean, its weights multiples of 1/64."""
    inputs = data.inputs.flatten(1).double()
    means = torch.stack([inputs[data.labels == label].mean(dim=0) for label in range(data.num_classes)])
    means = (means * 64).round() / 64
    head = nn.Linear(inputs.shape[1], data.num_classes)
    head.load_state_dict({"weight": means.float(), "bias": (-means.square().sum(dim=1) / 2).float()})
    return nn.Sequential(nn.Flatten(), head).eval().requires_grad_(False)
