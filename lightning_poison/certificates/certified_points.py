"""Certificates of an evaluation set with its clean labels: numbers, tables, curves and their ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.certificates.label_linear import LabelFlipCertificate
from lightning_poison.errors import UserError
from lightning_poison.functional.checks import check_integer, check_labels
from lightning_poison.report.logged_metric import LoggedMetric

__all__ = ["CertifiedPoints", "certified_accuracy", "default_radii", "radius_ceiling"]

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


def radius_ceiling(prediction: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    r"""The largest label-flip radius that is possible at points of a given prediction.

    **Theorem.** Let a deterministic learner commute with renaming the classes: exchanging the names of two classes in
    all training labels exchanges them in its prediction. Where it predicts c, its radius is at most
    :math:`\min_{j \ne c} \lceil (N_c + N_j) / 2 \rceil - 1`, N being the numbers of training labels.

    **Proof.** Let r = ceil((N_c + N_j) / 2). Relabel floor(N_c / 2) points of c as j and ceil(N_j / 2) points of j as
    c: these labels y' are at most r changes away. Changing instead the other points of the two classes, again at most
    r, gives the mirror image of y', with c and j renamed. If the prediction were c after any r changes, it would be c
    at both; but renaming c and j must turn the one prediction, c, into j. QED.

    Where neither c nor j has a label renaming them changes none, and such a learner predicts neither of them: there is
    no radius, and the ceiling is 0. A learner that breaks ties by class number does not commute with renaming where
    there is a tie; this project's certificates count ties against themselves and stay below the ceiling.

    Args:
        prediction: shape (m,), integers in [0, K).
        labels: shape (n,), integers in [0, K): the training labels.
        num_classes: K.

    Returns:
        shape (m,), int64, at least 0; n where there is one class only.

    Example:
        >>> radius_ceiling(torch.tensor([0, 1]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2]), num_classes=3)
        tensor([2, 2])
    """
    check_labels("labels", labels, num_classes)
    check_labels("prediction", prediction, num_classes)
    if num_classes == 1:
        return torch.full((len(prediction),), len(labels))
    counts = torch.bincount(labels.long(), minlength=num_classes)
    pairs = torch.div(counts[:, None] + counts[None, :] + 1, 2, rounding_mode="floor") - 1
    pairs = pairs.clamp(min=0)  # of two classes without labels
    pairs.fill_diagonal_(torch.iinfo(torch.int64).max)
    return pairs.min(dim=1).values[prediction.long()]  # small integers would be a mask, or too small for the radius
