"""What a poison and a selector are."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from lightning_poison.poisons.candidates import Candidates
from lightning_poison.poisons.flip_list import FlipList
from lightning_poison.poisons.poison_list import PoisonList
from lightning_poison.poisons.relabellings import Relabelling
from lightning_poison.poisons.training_set import TrainingSet

__all__ = ["Poison", "Selector"]


class Poison(ABC):
    """A rule that turns clean training data and a seed into a flip list, or into another list of poisons.

    Attributes:
        file_name: what its lists are called beside a run's logs.
    """

    # Without an annotation, which the command line would look up in the module of every subclass.
    file_name = FlipList.file_name

    @abstractmethod
    def num_classes_after(self, num_classes: int) -> int:
        """Number of classes of the poisoned data, given the number of the clean data."""

    @abstractmethod
    def craft(self, training_set: TrainingSet, seed: int) -> PoisonList:
        """The poisons: the same for the same data and seed, whatever the global random state.

        Args:
            training_set: the clean data.
            seed: of all draws.

        Raises:
            UserError: the budget, the classes or a file do not fit the data.
        """

    def check(self, training_set: TrainingSet, seed: int) -> None:  # noqa: ARG002  # for overriders
        """Refuse at once what would be refused after a long computation.

        Args:
            training_set: the clean data; only its labels may be looked at.
            seed: as for :meth:`craft`.

        Raises:
            UserError: the budget, the classes or the list do not fit the data.
        """
        self.num_classes_after(training_set.num_classes)


class Selector(ABC):
    """A rule that says which training points are flipped."""

    @abstractmethod
    def select(self, candidates: Candidates, seed: int) -> Tensor:
        """The points to flip.

        Args:
            candidates: the clean data, the points that the relabelling can change, and to what.
            seed: for rules that draw.

        Returns:
            shape (b,), int64: distinct indices in increasing order.
        """

    def check(self, candidates: Candidates) -> None:  # noqa: B027  # most have nothing to refuse
        """Refuse at once what :meth:`select` would refuse after a long computation; no input may be looked at.

        Raises:
            UserError: the budget or the classes do not fit the data.
        """

    def own_relabelling(self) -> Relabelling | None:
        """The relabelling that belongs to this selection; None: any may be combined with it."""
        return None
