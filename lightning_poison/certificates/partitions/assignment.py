"""Which training point belongs to which part, decided without any label."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_poison.certificates.features.base import binary_scale
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_integer
from lightning_poison.functional.point_order import OwnOrder, point_keys
from lightning_poison.functional.random_streams import generator, mix_seed

__all__ = ["Dealing", "deal_parts", "users_of_parts"]

Dealing = Literal["order", "hash", "clusters"]
"""How points are dealt out to parts."""


def deal_parts(features: Tensor, count: int, dealing: Dealing = "hash", seed: int = 0) -> Tensor:
    """Deal training points out to ``count`` parts of nearly equal size.

    The points are put into an order that no label moves, wherever they stand, and dealt out in turn, as a pack of
    cards:

    * ``"hash"``: by a hash of each point's features, as in SS-DPA (Levine and Feizi, 2021);
    * ``"order"``: shuffled;
    * ``"clusters"``: by the cluster that k-means finds, as many clusters as a part has points, and by hash within:
      every part gets a sample of all kinds of points.

    Points of equal features are dealt out as one: nothing but the order in which they are given tells them apart, and
    that may depend on labels. Were they in several parts, one changed label could change the labels of all of these.

    Args:
        features: shape (n, ...), any dtype.
        count: number of parts P.
        dealing: the order.
        seed: of the order, the hash and the clusters.

    Returns:
        shape (n,), int64 in [0, P): the part of each point; no part is empty.

    Raises:
        UserError: ``dealing`` is unknown, or there are more parts than different points.

    Example:
        >>> deal_parts(torch.arange(6.0)[:, None], 3).bincount().tolist()
        [2, 2, 2]
    """
    check_choice("dealing", dealing, ("order", "hash", "clusters"))
    own = OwnOrder.by_keys(point_keys(features, seed.to_bytes(16, "little", signed=True)), torch.zeros(len(features)))
    first = own.alike(torch.arange(len(features)))
    different, which = torch.unique(first, return_inverse=True)
    if check_integer("parts", count, minimum=1) > len(different):
        got = f"{count} for {len(different)} different points"
        raise UserError(f"parts must be at most the number of training points, got {got}")
    turn = torch.arange(len(different))
    if dealing == "order":
        turn = torch.randperm(len(different), generator=generator(seed, "order of parts"))
    elif dealing == "clusters":
        turn = _clusters(features[own.order], -(-len(features) // count), seed)[different].argsort(stable=True)
    of_different, parts = torch.empty_like(different), torch.empty(len(features), dtype=torch.int64)
    of_different[turn] = torch.arange(len(different)) % count
    parts[own.order] = of_different[which]
    return parts


def users_of_parts(count: int, spread: int, seed: int = 0) -> Tensor:
    """The voters that are trained on each part, under finite aggregation.

    There are as many voters as parts, and part p goes to voters p + s for each of ``spread`` random steps s, modulo
    their number (Wang, Levine and Feizi, 2022, section 3.2). So every voter has ``spread`` parts as well.

    Args:
        count: number of parts P, and of voters.
        spread: d, how many voters use a part.
        seed: of the steps.

    Returns:
        shape (P, d), int64.

    Raises:
        UserError: ``spread`` is larger than ``count``.

    Example:
        >>> users_of_parts(3, 1).tolist()
        [[0], [1], [2]]
    """
    if check_integer("spread", spread, minimum=1) > check_integer("parts", count, minimum=1):
        raise UserError(f"spread must be at most the number of parts, got {spread} for {count} parts")
    others = 1 + torch.randperm(count - 1, generator=generator(seed, "steps of parts"))[: spread - 1]
    steps = torch.cat([torch.zeros(1, dtype=torch.int64), others])
    return (torch.arange(count)[:, None] + steps) % count


def _clusters(features: Tensor, count: int, seed: int) -> Tensor:
    from sklearn.cluster import MiniBatchKMeans

    rows = (features.detach().cpu().flatten(1) / binary_scale(features.detach())).float().numpy()
    means = MiniBatchKMeans(count, n_init=1, batch_size=4096, random_state=mix_seed(seed, "clusters") % 2**32)
    return torch.as_tensor(means.fit_predict(rows)).long()
