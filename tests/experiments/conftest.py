"""What an experiment has trained."""

from __future__ import annotations

import pytest

from lightning_poison.ensembles import train_networks
from lightning_poison.experiments import experiment as experiment_module


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many networks each call has trained."""
    counts: list[int] = []

    def counted(net, inputs, labels, num_classes, seeds, *more, **named):
        counts.append(len(seeds))
        return train_networks(net, inputs, labels, num_classes, seeds, *more, **named)

    monkeypatch.setattr(experiment_module, "train_networks", counted)
    return counts
