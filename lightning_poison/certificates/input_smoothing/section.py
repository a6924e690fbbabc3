"""Input smoothing of an evaluation set with its labels: numbers, curve, and what they promise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.certificates.input_smoothing.smoothing import InputSmoothing, InputSmoothingCertificate
from lightning_poison.report import ReportFigure, ReportTable, Section
from lightning_poison.report.logged_metric import LoggedMetric

__all__ = ["SmoothedPoints", "smoothing_section"]

_CURVE_POINTS = 200


@dataclass(frozen=True)
class SmoothedPoints:
    """Certificates of evaluation points, in the order of their data set.

    Args:
        index: shape (m,), int64: positions in the data set, or where they are not known any numbers of their own.
        labels: shape (m,), int64.
        certificate: of the m points.
        known: whether ``index`` holds positions; if not, it does not show in the table.

    Example:
        >>> points = SmoothedPoints(torch.tensor([0, 1]), torch.tensor([3, 4]), InputSmoothingCertificate(
        ...     torch.tensor([3, -1]), torch.tensor([0.5, 0.0]), torch.tensor([1100, 1100])))
        >>> points.values([0.0, 0.25])["smooth/acc_at_0.25"]
        0.5
    """

    index: Tensor
    labels: Tensor
    certificate: InputSmoothingCertificate
    known: bool = True

    def __len__(self) -> int:
        return len(self.index)

    @classmethod
    def merge(cls, parts: Sequence[SmoothedPoints]) -> SmoothedPoints:
        """Join parts, such as those of several ranks, in the order of the data set; each position counts once."""
        index = torch.cat([part.index for part in parts])
        order = index.argsort(stable=True)
        kept = torch.ones(len(order), dtype=torch.bool)
        kept[1:] = index[order][1:] != index[order][:-1]
        rows = order[kept]
        certificates = [part.certificate for part in parts]
        return cls(
            index[rows],
            torch.cat([part.labels for part in parts])[rows],
            InputSmoothingCertificate(
                torch.cat([certificate.prediction for certificate in certificates])[rows],
                torch.cat([certificate.radius for certificate in certificates])[rows],
                torch.cat([certificate.draws for certificate in certificates])[rows],
            ),
            all(part.known for part in parts),
        )

    def accuracy(self, radii: Sequence[float]) -> list[float]:
        """Share of points classified as their label and certified for changes of l2 norm r, for each r."""
        right = self.certificate.prediction == self.labels
        reached = self.certificate.radius[None, :] >= torch.tensor(list(radii), dtype=torch.float64).reshape(-1, 1)
        shares: list[float] = (right & reached).double().mean(1).tolist()
        return shares

    def values(self, radii: Sequence[float], suffix: str = "") -> dict[str, float]:
        """Certified accuracy at each radius, mean radius (0 where it abstains) and share of abstentions."""
        return {metric.key: metric.value for metric in self.metrics(radii, suffix)}

    def metrics(self, radii: Sequence[float], suffix: str = "", note: str = "") -> list[LoggedMetric]:
        """The same values with their meaning; ``note`` says how they were measured."""
        series = suffix.removeprefix("_")
        name = f", {series}" if series else ""
        found = [
            LoggedMetric(
                f"smooth/acc_at_{r:.4g}{suffix}",
                f"Smoothed victim: certified accuracy at {r:.4g}{name}",
                "share",
                "Share of evaluation points that the victim, smoothed with Gaussian noise, classifies correctly, "
                "certified for every change of the input of at most so much in l2, in pixel units.",
                share,
                higher_is_better=True,
                note=note,
                kind="smoothed",
                headline=not suffix,
                series=series,
                radius=float(r),
            )
            for r, share in zip(radii, self.accuracy(radii), strict=True)
        ]
        radius = LoggedMetric(
            f"smooth/radius_mean{suffix}",
            f"Smoothed victim: certified radius, mean{name}",
            "pixels",
            "Mean l2 radius, in pixel units, of the smoothed victim's certificates; 0 where it abstains.",
            float(self.certificate.radius.mean()),
            higher_is_better=True,
            note=note,
            kind="smoothed",
        )
        abstained = LoggedMetric(
            f"smooth/abstained{suffix}",
            f"Smoothed victim: abstains{name}",
            "share",
            "Share of evaluation points for which the noisy copies decided for no class.",
            float(self.certificate.abstained.double().mean()),
            higher_is_better=False,
            note=note,
            kind="smoothed",
        )
        return [*found, radius, abstained]

    def csv(self) -> str:
        """A table with the columns ``index, label, prediction, radius, draws``; unknown positions are left empty."""
        certificate = self.certificate
        index = self.index.tolist() if self.known else [""] * len(self)
        columns = (self.labels, certificate.prediction, certificate.radius, certificate.draws)
        rows = zip(index, *(column.tolist() for column in columns), strict=True)
        return "\n".join(["index,label,prediction,radius,draws", *(",".join(map(str, row)) for row in rows), ""])


# --- in the report ----------------------------------------------------------------------------------------------------


def smoothing_section(points: SmoothedPoints, smoothing: InputSmoothing, radii: Sequence[float], title: str) -> Section:
    """Guarantee, table of certified accuracy at ``radii`` and curve over all radii.

    Args:
        points: the certified evaluation points, at least one.
        smoothing: how they were certified.
        radii: increasing, in pixel units; begins with 0.
        title: of the section.
    """
    from lightning_poison.plots import certified_accuracy_curve

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
    return Section(title, _smoothing_guarantee(smoothing), (table,), (picture,))


def _smoothing_guarantee(smoothing: InputSmoothing) -> tuple[str, ...]:
    """What the numbers promise: threat, classifier, meaning and certainty, a line each.

    Example:
        >>> print(_smoothing_guarantee(InputSmoothing(sigma=0.5))[1])
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
