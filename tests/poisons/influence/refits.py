"""The regression of the last layer, fitted again for every change of a label."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch.nn.functional import cross_entropy, one_hot

from lightning_poison.poisons import TrainingSet

DAMPING = 0.05


class Refit:
    """The regression of the last layer with a weight on every pair of point and label, by SciPy."""

    def __init__(self, data: TrainingSet, outer: torch.Tensor, num_classes: int):
        features = data.inputs.double()
        scale = float(features.square().mean().sqrt())
        self.features = torch.cat([features, torch.full((len(features), 1), scale)], dim=1)
        self.strength = DAMPING * scale**2
        self.outer, self.labels, self.num_classes = outer, data.labels, num_classes
        kept = torch.ones(len(features), dtype=torch.bool)
        kept[outer] = False
        self.mass = one_hot(data.labels, num_classes).double() * kept[:, None] / int(kept.sum())
        self.start = np.zeros(num_classes * 3)
        self.start = self.weights(self.mass)

    def weights(self, mass):
        def value(flat):
            weights = torch.tensor(flat).view(self.num_classes, -1).requires_grad_()
            log_p = torch.log_softmax(self.features @ weights.T, dim=1)
            loss = -(mass * log_p).sum() + self.strength / 2 * weights.square().sum()
            loss.backward()
            return float(loss.detach()), weights.grad.flatten().numpy()

        return minimize(value, self.start, jac=True, method="BFGS", options={"gtol": 1e-11, "maxiter": 500}).x

    def outer_loss(self, mass, moved=None):
        weights = torch.tensor(self.weights(mass)).view(self.num_classes, -1)
        seen = self.features[self.outer]
        if moved is not None:
            seen = torch.cat([moved.double(), seen[:, -1:]], dim=1)
        return float(cross_entropy(seen @ weights.T, self.labels[self.outer]))

    def flipped(self, row, new_label, amount):
        mass = self.mass.clone()
        mass[row, self.labels[row]] -= amount
        mass[row, new_label] += amount
        return mass
