"""Certificates as a part of a report: numbers, curve, and what they promise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from lightning_poison.certificates.certified_points import CertifiedPoints
from lightning_poison.certificates.learner import CertifiedLearner

if TYPE_CHECKING:
    from lightning_poison.report import Section

__all__ = ["certification_section"]

_CURVE_POINTS = 200


def certification_section(points: CertifiedPoints, learner: CertifiedLearner, radii: Sequence[int]) -> Section:
    """Guarantee, table of certified accuracy at ``radii`` and curve over all radii.

    Args:
        points: the certified evaluation points.
        learner: the learner that was certified.
        radii: increasing; begins with 0.
    """
    from lightning_poison.plots import certified_accuracy_curve
    from lightning_poison.report import ReportFigure, ReportTable, Section

    accuracy = points.accuracy(radii)
    longest = int(points.certificate.radius.max())
    every = sorted({int(radius) for radius in torch.linspace(0, longest, _CURVE_POINTS).tolist()})
    figure = certified_accuracy_curve(every, points.accuracy(every), clean_accuracy=accuracy[0])
    table = ReportTable(
        f"Share of {len(points)} evaluation points classified as their clean label whatever r of the "
        f"{learner.num_points} training labels are changed ({learner.reach})",
        ("r", "certified accuracy"),
        tuple((radius, f"{share:.2%}") for radius, share in zip(radii, accuracy, strict=True)),
    )
    caption = (
        "Certified accuracy against the number r of changed training labels, for "
        f"{learner.describe()} on {learner.features.describe()} ({learner.reach}), not for the neural network."
    )
    picture = ReportFigure.from_figure("certified-accuracy", caption, figure)
    text = tuple(learner.guarantee().splitlines())
    return Section("Certified accuracy under label flips", text, (table,), (picture,))
