"""Certificates of an evaluation set against input changes, with its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.certificates.input_smoothing.certificate import InputSmoothingCertificate
from lightning_poison.report.logged_metric import LoggedMetric

__all__ = ["SmoothedPoints"]


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
