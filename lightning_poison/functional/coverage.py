"""Choosing points so that everything has one of them that serves it well: facility location."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["cover"]

_TIE = 1e-6


def cover(
    service: Tensor,
    group: Tensor,
    budgets: list[int],
    *,
    rounds: int = 5,
    advance: Callable[[int], object] = lambda _: None,
) -> Tensor:
    r"""Maximise :math:`\sum_J \max_{i \in S} s_{Ji}` over sets S with a given number of candidates of each group.

    Greedy choice, at least half of the maximum under such budgets and :math:`1 - 1/e` of it with a single group
    (Fisher, Nemhauser and Wolsey, 1978), then exchanges: each chosen candidate gives way to the one of its group that
    serves best in its place, until none does.

    Args:
        service: shape (m, c), float32, not negative: how well candidate i serves customer J.
        group: shape (c,), int64, in [0, groups).
        budgets: how many of each group; at most its size.
        rounds: of exchanges, at most.
        advance: called with 1 after each greedy choice.

    Returns:
        shape (sum of budgets,), int64: distinct candidates, in the order of choice; of equally good ones the first.

    Example:
        >>> service, group = torch.tensor([[3.0, 2.0, 0.0], [0.0, 2.0, 3.0]]), torch.tensor([0, 0, 0])
        >>> cover(service, group, [1]), cover(service, group, [2])
        (tensor([1]), tensor([2, 0]))
    """
    left = torch.tensor(budgets, dtype=torch.int64)
    free = torch.ones(len(group), dtype=torch.bool)
    served = service.new_zeros(len(service))
    chosen: list[int] = []
    while int(left.sum()):
        pick = _best(service, served, free & (left[group] > 0))
        chosen.append(pick)
        free[pick] = False
        left[group[pick]] -= 1
        served = torch.maximum(served, service[:, pick])
        advance(1)
    for _ in range(rounds):
        if not _exchange(service, group, chosen, free):
            break
    return torch.tensor(chosen, dtype=torch.int64)


def _exchange(service: Tensor, group: Tensor, chosen: list[int], free: Tensor) -> bool:
    """Let each chosen candidate give way to a better one; whether any did."""
    changed = False
    for place, old in enumerate(chosen):
        others = service[:, [other for other in chosen if other != old]]
        served = others.amax(dim=1) if others.shape[1] else service.new_zeros(len(service))
        free[old] = True
        new = _best(service, served, free & (group == group[old]))
        gain = _total(service, served, new) - _total(service, served, old)
        if gain > _TIE * (1e-300 + _total(service, served, old)):
            chosen[place], changed = new, True
        free[chosen[place]] = False
    return changed


def _best(service: Tensor, served: Tensor, allowed: Tensor) -> int:
    """The allowed candidate that serves best beside what is served already; of equals the first."""
    columns = allowed.nonzero()[:, 0]
    totals = torch.maximum(service[:, columns], served[:, None]).sum(dim=0, dtype=torch.float64)
    good = totals >= totals.max() - _TIE * (1e-300 + float(totals.max()))
    return int(columns[good.nonzero()[0, 0]])


def _total(service: Tensor, served: Tensor, candidate: int) -> float:
    return float(torch.maximum(service[:, candidate], served).sum(dtype=torch.float64))
