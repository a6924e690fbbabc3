"""Input smoothing as a part of a report: numbers, curve, and what they promise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from lightning_poison.certificates.input_smoothing.points import SmoothedPoints
from lightning_poison.certificates.input_smoothing.smoothing import InputSmoothing

if TYPE_CHECKING:
    from lightning_poison.report import Section

__all__ = ["smoothing_guarantee", "smoothing_section"]

_CURVE_POINTS = 200


def smoothing_guarantee(smoothing: InputSmoothing) -> tuple[str, ...]:
    """What the numbers promise: threat, classifier, meaning and certainty, a line each.

    Example:
        >>> print(smoothing_guarantee(InputSmoothing(sigma=0.5))[1])
        Classifier: the victim smoothed by Gaussian noise (sigma 0.5), NOT the victim itself: it predicts what ...
    """
    threat = (
        "Threat: an adversary who knows everything but the noise that is drawn changes an evaluation input by at most "
        "r in l2 norm, in pixel units of [0, 1]; training is not attacked, and noisy pixels are not cut back to [0, 1]."
    )
    classifier = (
        f"Classifier: the victim smoothed by Gaussian noise (sigma {smoothing.sigma:g}), NOT the victim itself: it "
        "predicts what the victim most often predicts on noisy copies of the input."
    )
    meaning = "Meaning: a point counted at r is classified as its label, and no change of at most r alters this."
    certainty = (
        f"Certainty: each certificate fails with probability at most {smoothing.alpha:g} over the noise that was drawn "
        f"({smoothing.n0:,} copies to choose the class, up to {smoothing.n:,} to certify it); real arithmetic is "
        "assumed for the network."
    )
    return threat, classifier, meaning, certainty


def smoothing_section(points: SmoothedPoints, smoothing: InputSmoothing, radii: Sequence[float], title: str) -> Section:
    """Guarantee, table of certified accuracy at ``radii`` and curve over all radii.

    Args:
        points: the certified evaluation points, at least one.
        smoothing: how they were certified.
        radii: increasing, in pixel units; begins with 0.
        title: of the section.
    """
    from lightning_poison.plots import certified_accuracy_curve
    from lightning_poison.report import ReportFigure, ReportTable, Section

    certificate = points.certificate
    shares = points.accuracy(radii)
    every = torch.linspace(0, max(float(certificate.radius.max()), radii[-1]), _CURVE_POINTS).tolist()
    figure = certified_accuracy_curve(every, points.accuracy(every), xlabel="l2 size of the change, pixel units")
    table = ReportTable(
        f"Share of {len(points)} points classified as their label whatever change of l2 norm r is made; it abstains on "
        f"{float(certificate.abstained.double().mean()):.2%} and drew {float(certificate.draws.double().mean()):,.0f} "
        "noisy copies a point",
        ("r, pixel units", "certified accuracy"),
        tuple((f"{radius:.4g}", f"{share:.2%}") for radius, share in zip(radii, shares, strict=True)),
    )
    caption = (
        f"Certified accuracy of the smoothed victim (sigma {smoothing.sigma:g}) against the l2 norm of the change; "
        f"each certificate fails with probability at most {smoothing.alpha:g}."
    )
    if smoothing.stop_early:
        caption += " Drawing stopped once the radii of the table were decided: between them the curve is a lower bound."
    picture = ReportFigure.from_figure("input-smoothing", caption, figure)
    return Section(title, smoothing_guarantee(smoothing), (table,), (picture,))
