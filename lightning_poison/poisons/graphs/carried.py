"""How many of a point's neighbours a targeted attack carries to the point's colour."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_poison.attacks import Attack
from lightning_poison.functional.class_graph import ClassGraph
from lightning_poison.poisons.unit_box import UnitBox

__all__ = ["carried_neighbours"]

_EDGES = 2048  # at once


def carried_neighbours(
    attack: Attack,
    network: nn.Module,
    inputs: Tensor,
    graph: ClassGraph,
    colours: Tensor,
    advance: Callable[[int], object] = lambda _: None,
) -> Tensor:
    """Attack every point towards the colour of each of its neighbours, and count for these how often it gets there.

    A neighbour that the network gives the point's colour without any attack counts as carried.

    Args:
        attack: what carries.
        network: maps (N, ...) to logits (N, K) of the colours.
        inputs: shape (n, ...), float. Where they leave [0, 1] they are stretched onto it, and the attack's sizes are
            shares of their range.
        graph: n points.
        colours: shape (n,), int64: no two neighbours of a point share one.
        advance: called with the number of directed edges that are done.

    Returns:
        shape (n,), int64.

    Example:
        >>> from lightning_poison.attacks import PGD
        >>> pair = ClassGraph.from_pairs(2, [(torch.tensor([0]), torch.tensor([1]))])
        >>> network = nn.Linear(1, 2)  # colour 1 from 0.15 on
        >>> _ = network.load_state_dict({"weight": torch.tensor([[0.0], [1.0]]), "bias": torch.tensor([0.15, 0.0])})
        >>> carried_neighbours(PGD(eps=0.1), network, torch.tensor([[0.1], [0.3]]), pair, torch.tensor([0, 1]))
        tensor([0, 1])
    """
    box = UnitBox.around(inputs)
    stretched, attacked = (inputs, network) if box is None else (box.inwards(inputs), box.around_network(network))
    counts = torch.zeros(graph.num_points, dtype=torch.int64)
    neighbours, points = graph.edges()
    for some in torch.split(torch.arange(len(points)), _EDGES):
        start, goal = neighbours[some], points[some]
        result = attack(attacked, stretched[start], colours[start], targets=colours[goal], sample_ids=some)
        counts += torch.bincount(goal[result.fooled.cpu()], minlength=graph.num_points)
        advance(len(some))
    return counts
