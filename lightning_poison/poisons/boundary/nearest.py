"""The points nearest to the decision boundary, and the farthest."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_poison.functional.buckets import order_ranks
from lightning_poison.poisons.boundary.path_selector import PathSelector
from lightning_poison.poisons.candidates import Candidates
from lightning_poison.poisons.ranking import ScoreSelector

__all__ = ["FarthestFromBoundary", "NearestToBoundary"]


class _ByDistance(PathSelector, ScoreSelector):
    def _places(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        """The place of each point in the order of distances, from 0 for the nearest, float64."""
        distances = self.distances(candidates, index, seed)
        return order_ranks(distances.length + ~distances.reached, distances.margin).double()


@dataclass(frozen=True)
class FarthestFromBoundary(_ByDistance):
    """Flips the points whose adversarial path is longest, see :class:`PathLengthBucket` for the paths.

    A path that does not end within ``max_steps`` counts as the longest. Of equal lengths the point that the network is
    surer of (by its margin) counts as farther.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        target: "relabelled": a path leads to the label that the point would get, where the clean data have that class,
            else, as "untargeted" always does, out of the point's own class.
        surrogate: the network; None: the one that came along with the data, else one that is trained now.
        step: length of a step, in pixel units (in those of the inputs where they leave [0, 1]).
        max_steps: the longest path that is followed.
        clip: keep paths within [0, 1]; they get longer. The thesis does not.

    Raises:
        UserError: an argument is out of its range, or the surrogate does not fit the data.

    Example:
        >>> FarthestFromBoundary(per_class=5, target="untargeted").max_steps
        200
    """

    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        """The place in the order of distances, from 0 for the nearest."""
        return self._places(candidates, index, seed)


@dataclass(frozen=True)
class NearestToBoundary(_ByDistance):
    """Flips the points whose adversarial path is shortest, see :class:`PathLengthBucket` for the paths.

    Points that the network gets wrong (length 0) come first. Of equal lengths the point that the network is less sure
    of (by its margin) counts as nearer.

    Args:
        count: how many points in all.
        per_class: how many points of each class.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points.
        classes: the classes to choose from; None: every class.
        target: "relabelled": a path leads to the label that the point would get, where the clean data have that class,
            else, as "untargeted" always does, out of the point's own class.
        surrogate: the network; None: the one that came along with the data, else one that is trained now.
        step: length of a step, in pixel units (in those of the inputs where they leave [0, 1]).
        max_steps: the longest path that is followed.
        clip: keep paths within [0, 1]; they get longer. The thesis does not.

    Raises:
        UserError: an argument is out of its range, or the surrogate does not fit the data.

    Example:
        >>> NearestToBoundary(per_class=5, step=0.02).step
        0.02
    """

    def scores(self, candidates: Candidates, index: Tensor, seed: int) -> Tensor:
        """The place in the order of distances, from 0 for the farthest."""
        return -self._places(candidates, index, seed)
