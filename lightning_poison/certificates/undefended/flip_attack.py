r"""Label flips that change one prediction of an undefended logistic regression (Rosenfeld et al., 2020, appendix C).

Two orders are tried for each point, and the better attack is kept:

- **distance**: labels of the predicted class, those nearest to the point in feature space first;
- **influence**: labels whose flip moves the point's logit most against the prediction, by
  :math:`\Delta = -(2 y_i - 1)\, x^T H^{-1} x_i` (Koh and Liang, 2017), recomputed after each flip.

A reverse pass then takes back every flip that is not needed. All predictions are those of refitted models, so the
number of flips is an upper bound on the fewest, and says how robust the model is at most.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_poison.certificates.undefended.logistic import LogisticFits

__all__ = ["distance_attack", "influence_attack", "reverse_pass"]

_DOUBT = 3.0  # how far an estimated effect may be off before the reverse pass leaves a flip untried


def influence_attack(fits: LogisticFits, points: Tensor, max_flips: int, step: int) -> list[Tensor]:
    """Flip the label of largest influence, refit, and so on.

    Args:
        fits: one column a point, with the clean labels; changed.
        points: shape (B, d), float64.
        max_flips: give up after so many.
        step: labels flipped between two refits; 1 as in the paper.

    Returns:
        for each point the flipped training points, shape (f,), int64; empty where the prediction did not change.
    """
    sides, clean = _sides(fits, points), fits.labels.clone()
    found, open_ = [torch.empty(0, dtype=torch.int64) for _ in points], torch.arange(len(points))
    for flipped in range(0, max_flips, step):
        fits.refresh(torch.arange(len(open_)))
        gains = _effects(fits, points[open_], sides[open_]).masked_fill_(fits.labels != clean[:, open_], -torch.inf)
        best, index = gains.topk(min(step, max_flips - flipped, len(gains)), dim=0)
        flip = torch.zeros_like(fits.labels).scatter_(0, index, best > 0)
        fits.labels ^= flip
        fits.refit()
        changed = _sides(fits, points[open_]) != sides[open_]
        for column in changed.nonzero()[:, 0].tolist():
            found[int(open_[column])] = (fits.labels[:, column] != clean[:, open_[column]]).nonzero()[:, 0]
        rest = (~changed & (best[0] > 0)).nonzero()[:, 0]
        fits.keep(rest)
        open_ = open_[rest]
        if len(open_) == 0:
            break
    return found


def distance_attack(fits: LogisticFits, points: Tensor, max_flips: int) -> list[Tensor]:
    """Flip the nearest labels of the predicted class: twice as many until the prediction changes, then bisect.

    Args and returns as for :func:`influence_attack`.
    """
    sides, clean = _sides(fits, points), fits.labels.clone()
    distance = torch.cdist(fits.features, points).masked_fill_(clean != sides, torch.inf)
    order = distance.argsort(dim=0)
    most = (clean == sides).sum(0).clamp(max=max_flips)
    few, many = torch.zeros_like(most), torch.ones_like(most).minimum(most)

    def changes(counts: Tensor) -> Tensor:
        chosen = torch.arange(len(clean))[:, None] < counts
        fits.labels = clean ^ torch.zeros_like(clean).scatter_(0, order, chosen)
        fits.refit()
        return _sides(fits, points) != sides

    done = changes(many)
    while (growing := ~done & (many < most)).any():
        few = torch.where(growing, many, few)
        many = torch.where(growing, (2 * many).minimum(most), many)
        done |= changes(many)
    while (open_ := done & (many - few > 1)).any():
        middle = torch.where(open_, (few + many) // 2, many)
        success = changes(middle)
        many = torch.where(open_ & success, middle, many)
        few = torch.where(open_ & ~success, middle, few)
    counts = torch.where(done, many, 0).tolist()
    return [order[:count, column].sort().values for column, count in enumerate(counts)]


def reverse_pass(
    refitted: Callable[[Tensor], LogisticFits], labels: Tensor, points: Tensor, flips: list[Tensor]
) -> list[Tensor]:
    """Take back the flips that are not needed, those of least influence first.

    Args:
        refitted: from labels (n, B) to their fits.
        labels: shape (n,), bool: the clean ones.
        points: shape (B, d), float64.
        flips: of each point, as an attack found them; no list is empty.

    Returns:
        a part of each list that changes the prediction just as well.
    """
    flipped = torch.zeros(len(labels), len(points), dtype=torch.bool)
    for column, index in enumerate(flips):
        flipped[index, column] = True
    fits = refitted(labels[:, None] ^ flipped)
    sides, start = _sides(fits, points), fits.coefficients.clone()
    # What the flip added to the logit, measured towards the side that the attack reached.
    effects = _effects(fits, points, sides)
    order = effects.masked_fill(~flipped, torch.inf).argsort(dim=0)
    for rank in range(max(map(len, flips), default=0)):
        spared = order[rank : rank + 1]
        overshoot = (points * start.T).sum(1).abs()
        worth = flipped.gather(0, spared)[0] & (effects.gather(0, spared)[0] <= _DOUBT * overshoot)
        if not worth.any():
            break
        tried = flipped.scatter(0, spared, flipped.gather(0, spared) & ~worth)
        fits.labels = labels[:, None] ^ tried
        fits.refit()
        kept = _sides(fits, points) == sides
        flipped = torch.where(kept, tried, flipped)
        start = torch.where(kept, fits.coefficients, start)
    return [column.nonzero()[:, 0] for column in flipped.T]


def _sides(fits: LogisticFits, points: Tensor) -> Tensor:
    """The predicted labels as bool: logit above 0."""
    return (points * fits.coefficients.T).sum(1) > 0


def _effects(fits: LogisticFits, points: Tensor, sides: Tensor) -> Tensor:
    """For each label how much flipping it moves each point's logit away from ``sides``, to first order: (n, B)."""
    rows = torch.arange(len(points))
    pull = fits.features @ (fits.solve(points.T.contiguous(), rows) * (sides.double() * 2 - 1))
    return torch.where(fits.labels, pull, -pull)
