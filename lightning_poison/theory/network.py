r"""What the theorems ask of a classifier: a network's margins and steepness, and a linear one's risk under attack.

**Margins and Lipschitz constant** are the chi and the kappa of theorem 2 of
:mod:`lightning_poison.theory.memorisation`.

**Robust and non-robust features** (Tsipras et al., 2019): accuracy and robustness can be at odds. The label y is -1 or
+1 with equal probability, and the features are :math:`x_i = a_i y + Z_i` with independent standard normal :math:`Z_i`:
one strong feature, :math:`a_1 = 1`, and D - 1 weak ones, :math:`a_i = \sqrt{\log D / (D - 1)}`.

For the linear classifier :math:`\operatorname{sign}(w \cdot x)` and an adversary who changes each feature by at most
eps, the worst change lowers :math:`y\, w \cdot x` by :math:`\epsilon \|w\|_1`, and what is left is normal with mean
:math:`w \cdot a - \epsilon \|w\|_1` and standard deviation :math:`\|w\|_2`. Hence the risk is

.. math:: Q\left(\frac{w \cdot a - \epsilon \|w\|_1}{\|w\|_2}\right), \quad Q(t) = P[Z > t].

It is least at w = a for eps = 0 (Bayes; :math:`Q(\sqrt{1 + \log D})`), and at :math:`w_i = \max(a_i - \epsilon, 0)` for
any eps < 1: by the Cauchy-Schwarz inequality, as a sign other than that of a_i can only hurt.
"""

from __future__ import annotations

import math

import torch
from scipy.special import ndtr
from torch import Tensor, nn

from lightning_poison.attacks import class_scores, frozen_eval
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_choice, check_finite, check_integer, check_labels, check_number
from lightning_poison.functional.scale import unit_of

__all__ = ["feature_strengths", "linear_risk", "lipschitz_estimate", "robust_weights", "training_margins"]

_DUAL = {"l1": torch.inf, "l2": 2.0, "linf": 1.0}


# --- margins and Lipschitz constant -----------------------------------------------------------------------------------


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


# --- robust and non-robust features -----------------------------------------------------------------------------------


def feature_strengths(dim: int) -> Tensor:
    """The strengths a of the lecture's model: shape (dim,), float64, one strong feature and dim - 1 weak ones.

    Raises:
        UserError: dim is less than 2.

    Example:
        >>> feature_strengths(3)
        tensor([1.0000, 0.7412, 0.7412], dtype=torch.float64)
    """
    dim = check_integer("dim", dim, minimum=2)
    strengths = torch.full((dim,), math.sqrt(math.log(dim) / (dim - 1)), dtype=torch.float64)
    strengths[0] = 1.0
    return strengths


def linear_risk(strengths: Tensor, weights: Tensor, eps: float = 0.0) -> float:
    """Risk of a linear classifier when each feature may be changed by at most ``eps``.

    Args:
        strengths: shape (D,): a.
        weights: shape (D,): w, not all 0.
        eps: l-infinity size of the change; 0 gives the standard risk.

    Raises:
        UserError: eps is negative, numbers are not finite, or all weights are 0.

    Example:
        >>> strengths = feature_strengths(10_000)
        >>> eps = 2 * float(strengths[1])
        >>> [round(linear_risk(strengths, strengths, size), 4) for size in (0.0, eps)]
        [0.0007, 0.9952]
        >>> [round(linear_risk(strengths, torch.eye(10_000)[0], size), 4) for size in (0.0, eps)]
        [0.1587, 0.1738]
    """
    eps = check_number("eps", eps, minimum=0)
    a, w = check_finite("strengths", strengths).double(), check_finite("weights", weights).double()
    w = w * unit_of(w)  # the sign of the classifier has no scale
    size = float(torch.linalg.vector_norm(w))
    if not size > 0:
        raise UserError("weights must not all be 0, got a classifier without a sign; give one a positive weight")
    return float(ndtr(-(float(w @ a) - eps * float(w.abs().sum())) / size))


def robust_weights(strengths: Tensor, eps: float) -> Tensor:
    """The linear classifier of the least risk under changes of at most ``eps`` a feature.

    Args:
        strengths: shape (D,): a.
        eps: less than the largest strength, in absolute value.

    Returns:
        shape (D,), float64.

    Raises:
        UserError: eps is so large that no feature is left, or strengths are not finite.

    Example:
        >>> robust_weights(torch.tensor([1.0, 0.1]), eps=0.25)
        tensor([0.7500, 0.0000], dtype=torch.float64)
    """
    a = check_finite("strengths", strengths).double()
    if not check_number("eps", eps, minimum=0) < float(a.abs().max()):
        raise UserError(f"eps must be less than the largest strength {float(a.abs().max()):g}, got {eps:g}")
    return a.sign() * (a.abs() - eps).clamp(min=0)
