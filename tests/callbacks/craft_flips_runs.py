"""A strategy that looks through a network, and the runs at whose end it crafts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lightning_poison.poisons import (
    Candidates,
    LabelFlips,
    ScoreSelector,
)
from lightning_poison.poisons.surrogates import Surrogate, surrogate_network, surrogate_scores
from tests import lightning_runs
from tests.lightning_runs import small_weights

LABELS = torch.arange(90) % 3
STREAM = torch.Generator().manual_seed(0)
IMAGES = 0.3 * torch.rand(90, 1, 4, 4, generator=STREAM) + 0.7 * (torch.arange(4) == LABELS[:, None]).view(90, 1, 1, 4)
DATA = TensorDataset(IMAGES, LABELS)


@dataclass(frozen=True)
class LeastSure(ScoreSelector):
    """The points to which the network that came along gives the lowest score of their label."""

    surrogate: Surrogate | None = None

    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        training_set = candidates.training_set
        assert training_set.network is not None
        network = surrogate_network(None, training_set, seed)
        torch.rand(3)  # a careless strategy
        scores = surrogate_scores(network, training_set.inputs[index]).log_softmax(dim=1)
        return -scores.gather(1, training_set.labels[index, None])[:, 0]


POISON = LabelFlips(LeastSure(per_class=3))


def model_of(package: Any) -> Any:
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.1), small_weights(nn.Linear(16, 3)))
    return lightning_runs.model_of(package, net, lr=0.3)


def data_of(package: Any, dataset: Any = DATA) -> Any:
    return lightning_runs.data_of(package, dataset)


def as_mapping(net: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    return {"logits": net(inputs)}
