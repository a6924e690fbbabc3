r"""The paper's ridge strength, which looks at the labels.

.. math:: \lambda = (1 + q) \frac{\hat\sigma^2 k}{2 n} \kappa(X^T X), \qquad
          \hat\sigma^2 = \frac{\|y - X \hat\beta_{OLS}\|^2}{n - k}

(Rosenfeld et al., 2020, eq. 6). The noise estimate :math:`\hat\sigma^2` is computed from the labels that an adversary
may have changed, and no smoothing goes over it. So the learner is not a fixed function of the smoothed labels, and what
is certified with this strength is NOT proved: it is here to reproduce the paper's figures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_poison.errors import UserError
from lightning_poison.functional.scale import unit_of

__all__ = ["strength_of_equation_6"]


def strength_of_equation_6(features: Tensor, labels: Tensor, q: float) -> float:
    """Lambda of eq. 6.

    Args:
        features: X, shape (n, k), n > k, any float dtype.
        labels: shape (n,), 0 or 1.
        q: probability with which each label is flipped.

    Raises:
        UserError: there are no more points than features, or X^T X is singular.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
        >>> round(strength_of_equation_6(features, torch.tensor([1, 0, 1]), q=0.5), 6)
        2.0
    """
    points, dimensions = features.shape
    features, labels = features.double() * unit_of(features), labels.double()
    values = torch.linalg.eigvalsh(features.T @ features)
    if points <= dimensions or float(values[0]) <= 1e-13 * float(values[-1]):
        got = f"{points} points and {dimensions} dimensions, smallest eigenvalue {float(values[0]):.2g}"
        raise UserError(f"features must have full rank for strength=eq6, got {got}; use strength=relative")
    coefficients = torch.linalg.solve(features.T @ features, features.T @ labels)
    variance = float((labels - features @ coefficients).square().sum()) / (points - dimensions)
    return (1 + q) * variance * dimensions / (2 * points) * float(values[-1] / values[0])
