"""The points that a clean network finds hardest."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_poison.functional.checks import check_kind
from lightning_poison.functional.losses import cross_entropy
from lightning_poison.poisons.candidates import Candidates
from lightning_poison.poisons.ranking import ScoreSelector
from lightning_poison.poisons.surrogates import Surrogate, surrogate_network, surrogate_scores

__all__ = ["HighestLoss"]


@dataclass(frozen=True)
class HighestLoss(ScoreSelector):
    """Flips the points whose clean label has the highest cross-entropy on a clean network.

    They are atypical, mislabelled already, or close to the decision boundary: a baseline for better strategies.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        surrogate: the network; None: the one that came along with the data, else one that is trained now.

    Raises:
        UserError: an argument is out of its range, or the surrogate does not fit the data.

    Example:
        >>> HighestLoss(per_class=5).per_class
        5
    """

    surrogate: Surrogate | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind("surrogate", self.surrogate, Surrogate, "TrainedSurrogate()", optional=True)

    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        """The cross-entropy of each point."""
        network = surrogate_network(self.surrogate, candidates.training_set, seed)
        scores = surrogate_scores(network, candidates.training_set.inputs[index])
        return cross_entropy(scores.double(), candidates.labels[index])
