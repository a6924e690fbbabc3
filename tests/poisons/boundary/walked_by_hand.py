"""Lengths of adversarial paths, one point and one step at a time."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from lightning_poison.poisons import Candidates


def walked_by_hand(network, point, label, aim, step, limit):
    """Algorithm 2, one point at a time; untargeted where the aim is -1."""
    point, length = point[None].clone(), 0
    while True:
        scores = network(point)
        prediction = int(scores.argmax())
        if prediction == aim or (aim < 0 and prediction != label):
            return length, True
        if length == limit:
            return length, False
        point = point.detach().requires_grad_()
        wanted = torch.tensor([label if aim < 0 else aim])
        (gradient,) = torch.autograd.grad(cross_entropy(network(point), wanted), point)
        point = (point + (step if aim < 0 else -step) * gradient.sign()).detach()
        length += 1


def by_hand(data, selector, relabel, seed=0):
    """Length and whether it ended, of each eligible point."""
    candidates = Candidates.of(data, relabel, seed)
    found = {}
    for row in candidates.index.tolist():
        label, aim = int(data.labels[row]), int(candidates.new_labels[row])
        aim = -1 if selector.target == "untargeted" or aim >= data.num_classes else aim
        found[row] = walked_by_hand(data.network, data.inputs[row], label, aim, selector.step, selector.max_steps)
    return found
