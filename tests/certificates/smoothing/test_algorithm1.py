"""Smoothed certificates against the smoothed classifier itself, at every relabelling of small problems."""

import itertools

import pytest
import torch

from lightning_poison.certificates.smoothing import kl_radius, smoothed_predictions, tight_radius


@pytest.mark.parametrize(("classes", "size"), [(2, 8), (3, 5)])
@pytest.mark.parametrize("q", [0.02, 0.15, 0.35])
def test_no_relabelling_within_the_radius_changes_the_smoothed_prediction(classes: int, size: int, q: float) -> None:
    labellings = torch.tensor(list(itertools.product(range(classes), repeat=size)))
    distance = (labellings[:, None] != labellings[None]).sum(2)
    drawing = (1 - q) ** (size - distance).double() * (q / (classes - 1)) ** distance.double()
    stream = torch.Generator().manual_seed(size)
    certified = 0
    for number in range(4):
        weights = torch.rand(1, size, generator=stream).double() + (0.3 if number % 2 else 1.0)
        weights[0, 0] *= -1 if number == 3 else 1
        for coding in ("signs", "zero_one") if classes == 2 else ("signs",):
            probability = drawing @ base_votes(weights[0], labellings, classes, coding)
            for row in range(0, len(labellings), 11):
                for tail in ("chernoff", "berry_esseen", "audit")[: 3 if row % 55 == 0 else 2]:
                    smoothed = smoothed_predictions(weights, labellings[row], q, classes, coding, tail)
                    radius = int(tight_radius(smoothed.log_error, q, classes, size)[0])
                    assert radius >= int(kl_radius(smoothed.log_error, q, classes, size)[0])
                    if radius > 0:
                        near = probability[distance[row] <= radius]
                        certified += 1
                        assert (near[:, smoothed.prediction[0]] > 0.5).all()
    assert certified > 0 or q > 0.2


def base_votes(weights: torch.Tensor, labellings: torch.Tensor, classes: int, coding: str) -> torch.Tensor:
    """Which class wins outright for each labelling, (L, K); none at a tie."""
    scores = torch.stack([((labellings == c) * weights).sum(1) for c in range(classes)], dim=1)
    if coding == "zero_one":
        return torch.stack([scores[:, 1] < 0.5, scores[:, 1] > 0.5], dim=1).double()
    best = scores.max(1, keepdim=True).values
    return ((scores == best) & ((scores == best).sum(1, keepdim=True) == 1)).double()
