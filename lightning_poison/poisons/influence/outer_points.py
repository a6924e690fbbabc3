"""Training points that judge flips and take no part in anything else."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import Subset, TensorDataset

from lightning_poison.errors import UserError
from lightning_poison.functional.random_streams import generator
from lightning_poison.poisons.surrogates import Surrogate, surrogate_network
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["network_without", "outer_points"]

_LARGEST_SHARE = 5  # at most one point in five


def outer_points(training_set: TrainingSet, count: int, classes: list[int] | None, seed: int) -> Tensor:
    """Draw points that judge.

    Args:
        training_set: the clean data.
        count: how many; of fewer than five times as many a fifth is drawn.
        classes: theirs; None: every class.
        seed: of the draw.

    Returns:
        shape (m,), int64, rising.

    Raises:
        UserError: a class does not exist, or there are fewer than five points to draw from.
    """
    num_classes = training_set.num_classes
    for label in classes or []:
        if not 0 <= label < num_classes:
            raise UserError(f"outer_classes must lie in [0, {num_classes - 1}], got {label}")
    chosen = torch.arange(num_classes) if classes is None else torch.tensor(classes)
    members = torch.isin(training_set.labels, chosen).nonzero()[:, 0]
    drawn = min(count, len(members) // _LARGEST_SHARE)
    if not drawn:
        raise UserError(
            f"influence needs {_LARGEST_SHARE} training points of the classes that judge, got {len(members)}; "
            "name larger outer_classes"
        )
    order = torch.randperm(len(members), generator=generator(seed, "outer points"))
    return members[order[:drawn]].sort().values


def network_without(training_set: TrainingSet, outer: Tensor, surrogate: Surrogate | None, seed: int) -> nn.Module:
    """The surrogate; where one is trained now, then without the points that judge.

    Args:
        training_set: the clean data.
        outer: shape (m,), int64: the points that judge.
        surrogate: what the user named; None: nothing.
        seed: of a surrogate's training.

    Raises:
        UserError: it does not fit the data.
    """
    if surrogate is None and training_set.network is not None:
        return surrogate_network(None, training_set, seed)

    def rest() -> TrainingSet:
        kept = torch.ones(training_set.num_points, dtype=torch.bool)
        kept[outer] = False
        rows = kept.nonzero()[:, 0]
        everything = TensorDataset(training_set.inputs, training_set.labels)
        return TrainingSet(
            training_set.labels[rows],
            training_set.num_classes,
            dataset=Subset(everything, rows.tolist()),
            progress=training_set.progress,
        )

    key = ("without outer points", tuple(outer.tolist()))
    return surrogate_network(surrogate, training_set.remembered(key, rest), seed)
