"""The points in the middle of a class's clusters."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.functional.checks import check_integer_field
from lightning_poison.functional.coverage import swap_medoids
from lightning_poison.functional.random_streams import mix_seed
from lightning_poison.poisons.base import Candidates
from lightning_poison.poisons.budget import BudgetedSelector, Share

__all__ = ["Medoids"]

_CENTRES = 64  # whose distances to all points are taken at once
_ROUNDING = 1e-9  # of the mean square of the points: distances that differ by less are equal


@dataclass(frozen=True)
class Medoids(BudgetedSelector):
    """Divides each class into as many clusters as it has flips, and takes the point nearest each centre.

    What makes flips hurt a network that memorises them is coverage: that every clean point has a flip near by. k-means
    (Lloyd, 1982, started by Arthur and Vassilvitskii's k-means++, 2007) minimises the mean squared distance of the
    points to their centre. No network is needed, so it is the rule to start with.

    Distances are Euclidean between the flattened inputs. The points of largest clusters are taken first; no point is
    taken twice, also where inputs are equal. A share whose whole content is flipped needs no clusters.

    Args:
        count: how many points in all, clustered together whatever their class.
        per_class: how many points of each class, each class clustered by itself.
        fraction: which share of the points of the classes, in [0, 1], rounded to whole points; clustered together.
        classes: the classes to choose from; None: every class.
        restarts: how often k-means starts anew; the tightest clusters count.
        swaps: how many exchanges, at most, follow in each clustering. They lower the mean squared distance to the
            nearest flip, which the points nearest the centres do not quite minimise; see
            :func:`~lightning_poison.functional.coverage.swap_medoids`. 0: none. An exchange takes a look at all
            distances between the points that are clustered together: under a second for 3,000 images of 784 pixels on
            one core.

    Raises:
        UserError: more than one budget is given, or an argument is out of range.

    Example:
        >>> from lightning_poison.poisons import LabelFlips, TrainingSet
        >>> inputs = torch.tensor([0.0, 0.1, 0.2, 5.0, 5.1, 5.2])[:, None]
        >>> labels = torch.zeros(6, dtype=torch.int64)
        >>> training_set = TrainingSet(labels, 2, dataset=[(row, 0) for row in inputs])
        >>> LabelFlips(Medoids(count=2)).craft(training_set, seed=0).index
        tensor([1, 4])
    """

    restarts: int = 4
    swaps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer_field(self, "restarts", minimum=1)
        check_integer_field(self, "swaps", minimum=0)

    def choose(self, candidates: Candidates, shares: list[Share], seed: int) -> list[Tensor]:
        """Cluster each share by itself."""
        chosen = []
        with candidates.training_set.progress("clustering", sum(share.budget for share in shares)) as advance:
            for share in shares:
                chosen.append(self._medoids(candidates, share, seed))
                advance(share.budget)
        return chosen

    def _medoids(self, candidates: Candidates, share: Share, seed: int) -> Tensor:
        if share.budget in (0, len(share.members)):
            return share.members[: share.budget]
        points = candidates.training_set.inputs[share.members].flatten(1).double()
        keys = () if share.label is None else (share.label,)
        centres = _centres(points, share.budget, self.restarts, mix_seed(seed, "Medoids", *keys))
        middle = points.mean(dim=0)  # taken off, rounding is small beside the spread
        rows = _nearest_unused(points - middle, centres - middle, share.budget)
        return share.members[swap_medoids(points, rows, self.swaps)]


def _centres(points: Tensor, count: int, restarts: int, seed: int) -> Tensor:
    """Means of the clusters, at most ``count``: those of most points first, empty clusters left out.

    They are computed anew from the clusters, point after point: threads leave no trace in the last bits.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        fitted = KMeans(count, n_init=restarts, random_state=seed % 2**32).fit(points.numpy())
    groups = torch.from_numpy(fitted.labels_).long()
    sizes = groups.bincount(minlength=count)
    sums = points.new_zeros(count, points.shape[1]).index_add_(0, groups, points)
    order = sizes.argsort(descending=True, stable=True)[: int((sizes > 0).sum())]
    return sums[order] / sizes[order][:, None]


def _nearest_unused(points: Tensor, centres: Tensor, count: int) -> Tensor:
    """``count`` rows: for each centre in turn, round and round, the nearest row not yet taken; the first of equals."""
    squares = points.square().sum(dim=1)
    tolerance = _ROUNDING * float(squares.mean())
    free = torch.ones(len(points), dtype=torch.bool)
    taken: list[int] = []
    while len(taken) < count:
        for some in torch.split(centres[: count - len(taken)], _CENTRES):
            for distances in squares - 2 * some @ points.T:
                distances[~free] = torch.inf
                nearest = int((distances <= distances.min() + tolerance).nonzero()[0])
                free[nearest] = False
                taken.append(nearest)
    return torch.tensor(taken)
