"""What each of many runs is trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.functional.random_streams import generator

__all__ = ["NoisyLabels", "PartsOfData", "TrainingSets"]


class TrainingSets(ABC):
    """For each run, which points and which labels. Small enough to be sent to other processes."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of runs."""

    @abstractmethod
    def of_run(self, run: int) -> tuple[Tensor | None, Tensor]:
        """Positions of the points, shape (s,), None for all in order; and their labels, shape (s,), int64."""


@dataclass(frozen=True)
class NoisyLabels(TrainingSets):
    """All points, each label flipped with probability q to one of the other K - 1 classes, all equally likely.

    The flips of a run depend on the seed, the run's number and the position of the point alone. Which of several equal
    points has which of their labels is drawn anew in each run, so that one changed label is one changed label however
    the labels were told apart.

    Args:
        labels: shape (n,), int64 in [0, K).
        num_classes: K.
        q: the probability.
        runs: how many.
        seed: of the flips.
        equal: shape (n,), int64: the same number for equal points, rising; None: all are different.

    Example:
        >>> noisy = NoisyLabels(torch.zeros(1000, dtype=torch.int64), 3, q=0.2, runs=1).of_run(0)[1]
        >>> [round(share, 1) for share in (noisy.bincount() / 1000).tolist()]
        [0.8, 0.1, 0.1]
    """

    labels: Tensor
    num_classes: int
    q: float
    runs: int
    seed: int = 0
    equal: Tensor | None = None

    def __len__(self) -> int:
        """Number of runs."""
        return self.runs

    def of_run(self, run: int) -> tuple[None, Tensor]:
        """Every point, with fresh flips."""
        stream, n = generator(self.seed, "noisy labels", run), len(self.labels)
        flipped = torch.rand(n, generator=stream, dtype=torch.float64) < self.q
        steps = torch.randint(1, max(self.num_classes, 2), (n,), generator=stream)
        labels = self.labels
        if self.equal is not None:
            shuffled = torch.randperm(n, generator=generator(self.seed, "equal points", run))
            labels = labels[shuffled[self.equal[shuffled].argsort(stable=True)]]
        return None, torch.where(flipped, (labels + steps) % self.num_classes, labels)


@dataclass(frozen=True)
class PartsOfData(TrainingSets):
    """One run for each voter: the points of the parts that it uses, with their labels as they are.

    Args:
        labels: shape (n,), int64 in [0, K).
        parts: shape (n,), int64 in [0, P): the part of each point.
        users: shape (P, d), int64: the voters that use each part.
    """

    labels: Tensor
    parts: Tensor
    users: Tensor

    def __len__(self) -> int:
        """Number of voters."""
        return len(self.users)

    def of_run(self, run: int) -> tuple[Tensor, Tensor]:
        """The points of one voter, ascending."""
        uses = (self.users == run).any(1)
        points = uses[self.parts].nonzero()[:, 0]
        return points, self.labels[points]
