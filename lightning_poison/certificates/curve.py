"""Certified accuracy: how many predictions are right and stay so."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer

__all__ = ["certified_accuracy", "default_radii"]


def certified_accuracy(certificate: LabelFlipCertificate, labels: Tensor, radii: Sequence[int]) -> Tensor:
    """Share of points that are classified as their clean label and certified for at least r label changes.

    Args:
        certificate: of m points.
        labels: shape (m,), integers: the clean labels.
        radii: numbers of changed training labels r >= 0; r = 0 gives the natural accuracy.

    Returns:
        shape (len(radii),), float64 in [0, 1], NaN without points.

    Raises:
        UserError: a radius is negative, or labels and certificate differ in length.

    Example:
        >>> certificate = LabelFlipCertificate(torch.tensor([0, 1, 1]), torch.tensor([5, 2, 9]))
        >>> certified_accuracy(certificate, torch.tensor([0, 1, 0]), [0, 3]).tolist()
        [0.6666666666666666, 0.3333333333333333]
    """
    for radius in radii:
        check_integer("radii", radius, minimum=0, remedy="a radius counts changed labels")
    if labels.shape != certificate.prediction.shape:
        got = f"{tuple(labels.shape)} labels for {tuple(certificate.prediction.shape)} predictions"
        raise UserError(f"labels must match the certificate, got {got}; pass the labels of the certified points")
    right = certificate.prediction == labels.long()
    reached = certificate.radius[None, :] >= torch.tensor(list(radii)).reshape(-1, 1)
    return (right & reached).double().mean(1)


def default_radii(labels: Tensor) -> list[int]:
    """0, 1, 2, 5, 10, 20, 50, ... up to the largest radius that any fair learner can reach.

    The two largest classes bound every pair in :func:`radius_ceiling`.

    Args:
        labels: shape (n,), integers: the training labels.

    Example:
        >>> default_radii(torch.arange(300) % 10)
        [0, 1, 2, 5, 10, 20]
    """
    counts = torch.bincount(labels.long())
    ceiling = (int(counts.topk(min(2, len(counts))).values.sum()) + 1) // 2 - 1
    steps = [digit * 10**power for power in range(len(str(len(labels)))) for digit in (1, 2, 5)]
    return [0, *(step for step in steps if step <= ceiling)]
