"""Certificates of an evaluation set, with its clean labels: the numbers and the table made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.certificates.curve import certified_accuracy
from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.report.logged_metric import LoggedMetric

__all__ = ["CertifiedPoints"]

_CERTIFIED = (
    "Share of evaluation points that the certified learner (not the victim) classifies correctly, however up to so "
    "many training labels are changed: to other declared classes, or, if the name ends in any_label, to any label "
    "at all. The note beside the number says how certain that is."
)
_MEDIAN = (
    "Median, over the evaluation points, of the number of training labels that may change without changing the "
    "certified learner's prediction: to other declared classes, or, if the name ends in any_label, to any label "
    "at all."
)
_MEAN = "The same radius, averaged."
_ABSTAINED = (
    "Share of evaluation points for which too few trainings agreed; their radius counts as 0 in median and mean."
)


@dataclass(frozen=True)
class CertifiedPoints:
    """Certificates of evaluation points, in the order of their data set.

    Args:
        index: shape (m,), int64: positions in the data set, or where they are not known any numbers of their own.
        labels: shape (m,), int64: clean labels.
        certificate: of the m points.
        known: whether ``index`` holds positions; if not, it does not show in the table.

    Example:
        >>> points = CertifiedPoints(torch.tensor([0, 1]), torch.tensor([3, 4]),
        ...     LabelFlipCertificate(torch.tensor([3, 3]), torch.tensor([10, 20])))
        >>> points.values([0, 20])
        {'cert/acc_at_0': 0.5, 'cert/acc_at_20': 0.0, 'cert/radius_median': 10.0, 'cert/radius_mean': 15.0}
    """

    index: Tensor
    labels: Tensor
    certificate: LabelFlipCertificate
    known: bool = True

    def __len__(self) -> int:
        return len(self.index)

    @classmethod
    def merge(cls, parts: Sequence[CertifiedPoints]) -> CertifiedPoints:
        """Join parts, such as those of several ranks, and count each data set position once.

        Positions below zero mark repeats and are dropped.
        """
        rows = torch.cat(
            [torch.stack([p.index, p.labels, p.certificate.prediction, p.certificate.radius]) for p in parts], 1
        )
        index = rows[0]
        order = index.argsort(stable=True)
        order = order[index[order] >= 0]
        first = torch.ones(len(order), dtype=torch.bool)
        first[1:] = index[order][1:] != index[order][:-1]
        index, labels, prediction, radius = rows[:, order[first]]
        return cls(index, labels, LabelFlipCertificate(prediction, radius), all(part.known for part in parts))

    def accuracy(self, radii: Sequence[int]) -> list[float]:
        """Certified accuracy at each radius, see :func:`certified_accuracy`."""
        shares: list[float] = certified_accuracy(self.certificate, self.labels, radii).tolist()
        return shares

    def values(self, radii: Sequence[int], suffix: str = "") -> dict[str, float]:
        """Certified accuracy at each radius, median (the lower one) and mean radius over all points.

        Points on which the learner abstains count with radius 0; their share is ``cert/abstained``, where there are
        any.
        """
        return {metric.key: metric.value for metric in self.metrics(radii, suffix)}

    def metrics(self, radii: Sequence[int], suffix: str = "", note: str = "") -> list[LoggedMetric]:
        """The same values with their meaning; ``note`` says how far they reach."""
        learner = suffix.removeprefix("_")
        name = f", {learner}" if learner else ""
        radius, abstained = self.certificate.radius.clamp(min=0), self.abstained
        found = [
            LoggedMetric(
                f"cert/acc_at_{r}{suffix}",
                f"Certified accuracy at {r:,} {'label' if r == 1 else 'labels'}{name}",
                "share",
                _CERTIFIED if r else "Accuracy of the certified learner, with the training labels as they are.",
                share,
                higher_is_better=True,
                note=note,
                kind="certified",
                headline=True,
                series=learner,
                radius=float(r),
            )
            for r, share in zip(radii, self.accuracy(radii), strict=True)
        ]
        others = [
            ("radius_median", "Certified radius, median", "labels", _MEDIAN, float(radius.median())),
            ("radius_mean", "Certified radius, mean", "labels", _MEAN, float(radius.double().mean())),
        ]
        if abstained.any():
            share = float(abstained.double().mean())
            others.append(("abstained", "Certified learner abstains", "share", _ABSTAINED, share))
        return found + [
            LoggedMetric(
                f"cert/{key}{suffix}",
                f"{label}{name}",
                unit,
                words,
                value,
                higher_is_better=key != "abstained",
                note=note,
                kind="certified",
                series=learner,
            )
            for key, label, unit, words, value in others
        ]

    @property
    def abstained(self) -> Tensor:
        """Where the learner makes no prediction: shape (m,), bool."""
        return self.certificate.radius < 0

    def csv(self) -> str:
        """A table with the columns ``index, label, prediction, radius``; unknown positions are left empty."""
        index = self.index.tolist() if self.known else [""] * len(self)
        columns = (self.labels, self.certificate.prediction, self.certificate.radius)
        rows = zip(index, *(column.tolist() for column in columns), strict=True)
        return "\n".join(["index,label,prediction,radius", *(",".join(map(str, row)) for row in rows), ""])
