"""The margin and the Lipschitz constant of theorem 2, measured on a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_poison.attacks import class_scores, frozen_eval
from lightning_poison.functional.checks import check_choice, check_finite, check_labels

__all__ = ["lipschitz_estimate", "training_margins"]

_DUAL = {"l1": torch.inf, "l2": 2.0, "linf": 1.0}


def training_margins(model: nn.Module, inputs: Tensor, labels: Tensor, batch_size: int = 500) -> Tensor:
    """Probability of the given label minus that of the next likeliest class.

    Theorem 2 takes the smallest over the mislabelled training points; a negative one means that a label was not learnt
    and that the theorem does not apply.

    Args:
        model: maps (N, ...) to logits (N, K).
        inputs: shape (n, ...): training points.
        labels: shape (n,), integers: their labels as given, flips included.
        batch_size: points that go through the model at once.

    Returns:
        shape (n,), float64, in [-1, 1].

    Example:
        >>> training_margins(nn.Identity(), torch.tensor([[0.0, 20.0]]), torch.tensor([1])).round(decimals=3)
        tensor([1.], dtype=torch.float64)
    """
    margins = [torch.empty(0, dtype=torch.float64)]
    with frozen_eval(model), torch.no_grad():
        for points, wanted in zip(torch.split(inputs, batch_size), torch.split(labels, batch_size), strict=True):
            scores = class_scores(model, points.clone()).double()
            given = check_labels("labels", wanted, scores.shape[1]).long()[:, None].to(scores.device)
            shares = scores.softmax(1)
            own = shares.gather(1, given)[:, 0]
            margins.append((own - shares.scatter(1, given, -1.0).amax(1)).cpu())
    return torch.cat(margins)


def lipschitz_estimate(model: nn.Module, inputs: Tensor, norm: str = "l2", batch_size: int = 500) -> float:
    r"""How fast the class probabilities change at the given points: an estimate of kappa.

    At a point the l1 norm of the change of C(x) for each unit of distance is at most
    :math:`\sum_k \|\nabla C_k(x)\|_*`, with the dual norm. The largest of these sums over the points is returned: not
    below the local constant *at these points*, but the network may be steeper elsewhere, so that this is no proof. Give
    it many points, also between training points.

    Args:
        model: maps (N, ...) to logits (N, K).
        inputs: shape (n, ...).
        norm: "l1", "l2" or "linf": how distances are measured.
        batch_size: points that go through the model at once.

    Returns:
        kappa, in units of probability for each unit of distance.

    Raises:
        UserError: a gradient is not finite.

    Example:
        >>> round(lipschitz_estimate(nn.Identity(), torch.zeros(1, 2)), 4)  # softmax at (0, 0)
        0.7071
    """
    order = _DUAL[check_choice("norm", norm, _DUAL)]
    steepest = 0.0
    with frozen_eval(model):
        for part in torch.split(inputs, batch_size):
            points = part.clone().requires_grad_(True)
            shares = class_scores(model, points).softmax(1)
            total = torch.zeros(len(part), dtype=torch.float64, device=part.device)
            for share in shares.unbind(1):
                (gradient,) = torch.autograd.grad(share.sum(), points, retain_graph=True)
                total += torch.linalg.vector_norm(gradient.flatten(1).double(), ord=order, dim=1)
            steepest = max(steepest, float(check_finite("gradients", total, remedy="the network overflows").max()))
    return steepest
