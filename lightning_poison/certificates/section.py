"""Certificates as a part of a report: numbers, curves, and what they promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_poison.certificates.certified_points import CertifiedPoints, radius_ceiling
from lightning_poison.certificates.guarantee import Certainty, reach_of
from lightning_poison.certificates.learner import CertifiedLearner
from lightning_poison.certificates.undefended import AttackedPoints
from lightning_poison.report import ReportFigure, ReportTable, Section

__all__ = ["CertifiedMethod", "Curve", "certification_section"]

Curve = Mapping[int, float]
"""Accuracy in [0, 1] at numbers r of changed labels."""

_CURVE_POINTS = 200


@dataclass(frozen=True)
class CertifiedMethod:
    """A learner and its certificates of the evaluation points.

    Args:
        learner: fitted.
        points: certified evaluation points.
    """

    learner: CertifiedLearner
    points: CertifiedPoints

    def ceiling(self) -> Tensor:
        """For each point the radius that no learner exceeds, see :func:`radius_ceiling`; shape (m,), int64."""
        return radius_ceiling(self.points.certificate.prediction, self.learner.labels, self.learner.num_classes)


def certification_section(
    methods: Mapping[str, CertifiedMethod],
    radii: Sequence[int],
    *,
    published: Mapping[str, Curve] | None = None,
    attacked: Mapping[str, AttackedPoints] | None = None,
    title: str = "Certified accuracy under label flips",
    name: str = "certified-accuracy",
) -> Section:
    """Guarantees, table of certified accuracy at ``radii``, the distance still possible, and curves over all radii.

    Args:
        methods: certified learners by name, all on the same evaluation points; a single one needs no name ("").
        radii: increasing; begins with 0.
        published: other people's figures, drawn as marks: certified accuracy at some radii.
        attacked: attacked points of undefended learners by name, drawn as dotted lines.
        title: of the section.
        name: of the picture's file.
    """
    text = _texts({label: method.learner for label, method in methods.items()})
    tables = (_accuracy_table(methods, attacked or {}, radii), _radius_table(methods))
    own = {figure.name: figure for method in methods.values() for figure in method.learner.report_figures()}
    return Section(title, text, tables, (_curves(methods, published or {}, attacked or {}, name), *own.values()))


def _texts(learners: Mapping[str, CertifiedLearner]) -> tuple[str, ...]:
    """The guarantees line by line; what all learners share is said once."""
    lines: list[str] = []
    for versions in zip(*(learner.guarantee().splitlines() for learner in learners.values()), strict=True):
        owners: dict[str, list[str]] = {}
        for label, version in zip(learners, versions, strict=True):
            owners.setdefault(version, []).append(label or "this learner")
        alone = len(owners) == 1
        lines += [version if alone else f"{', '.join(names)}. {version}" for version, names in owners.items()]
    return tuple(lines)


def _accuracy_table(
    methods: Mapping[str, CertifiedMethod], attacked: Mapping[str, AttackedPoints], radii: Sequence[int]
) -> ReportTable:
    first = next(iter(methods.values()))
    shares_of = {label or "certified accuracy": method.points.accuracy(radii) for label, method in methods.items()}
    columns = shares_of | {name: points.accuracy(radii) for name, points in attacked.items()}
    shares = columns.values()
    rows = [(radius, *(f"{share:.2%}" for share in row)) for radius, *row in zip(radii, *shares, strict=True)]
    caption = (
        f"Share of {len(first.points):,} evaluation points classified as their clean label whatever r of the "
        f"{first.learner.num_points:,} training labels are changed {_labels(methods)} ({_reaches(methods)})."
        f"{_doubts(methods)}"
    )
    for name, points in attacked.items():
        caption += (
            f" {name.capitalize()}: share of {len(points):,} of them still right after r flips that an attack found, a "
            f"{points.certainty.claim}."
        )
    return ReportTable(caption, ("r", *columns), tuple(rows))


def _radius_table(methods: Mapping[str, CertifiedMethod]) -> ReportTable:
    rows: list[tuple[str | int | float | None, ...]] = []
    for label, method in methods.items():
        radius, abstained = method.points.certificate.radius.clamp(min=0), method.points.abstained
        together = method.learner.certainty().of_all_points and not abstained.any()
        mean, ceiling = float(radius.double().mean()), float(method.ceiling().double().mean())
        rows.append(
            (
                label or "this learner",
                int(radius.median()),
                round(mean, 1),
                round(ceiling, 1),
                f"{mean / ceiling:.1%}" if ceiling > 0 else None,
                int(radius.min()) if together else None,
                f"{float(abstained.double().mean()):.2%}" if abstained.any() else 0,
            )
        )
    columns = ("learner", "median radius", "mean radius", "mean ceiling", "reached", "all unchanged up to", "abstains")
    caption = (
        "Certified radii in changed training labels, and how far they could go: no learner that treats the classes "
        "alike has a radius above ceil((N_c + N_j) / 2) - 1 where it predicts c, for any class j. Points on which it "
        "abstains count with radius 0."
    )
    caption += _all_unchanged([method.learner.certainty() for method in methods.values()])
    return ReportTable(caption, columns, tuple(rows))


def _all_unchanged(certainties: Sequence[Certainty]) -> str:
    """What the smallest radius of all means, where certificates hold for all points at once."""
    whole = [certainty for certainty in certainties if certainty.of_all_points]
    if not whole:
        return ""
    odds = min(certainty.probability for certainty in whole)
    surely = "" if odds == 1 else f", with probability {odds:.6g} at least"
    others = "" if len(whole) == len(certainties) else "; of learners without such a number this is not certain"
    return (
        " Up to the smallest radius of all, not one prediction on the evaluation points changes, whichever labels are "
        f"changed{surely}{others}."
    )


def _curves(
    methods: Mapping[str, CertifiedMethod],
    published: Mapping[str, Curve],
    attacked: Mapping[str, AttackedPoints],
    name: str,
) -> ReportFigure:
    from lightning_poison.plots import certified_accuracy_curve

    longest = max(int(method.points.certificate.radius.max()) for method in methods.values())
    every = torch.unique(torch.linspace(0, max(longest, 0), _CURVE_POINTS, dtype=torch.float64).long()).tolist()
    single = len(methods) == 1
    shares = {label or "certified accuracy": method.points.accuracy(every) for label, method in methods.items()}
    figure = certified_accuracy_curve(
        every,
        shares,
        clean_accuracy=next(iter(shares.values()))[0] if single else None,
        published=published,
        attacked={label: _attacked_curve(points, every) for label, points in attacked.items()},
    )
    what = _what(next(iter(methods.values())).learner) if single else f"{len(methods)} certified learners"
    caption = (
        f"Certified accuracy against the number r of training labels changed {_labels(methods)}, for {what} "
        f"({_reaches(methods)}), not for the neural network.{_doubts(methods)}"
    )
    if attacked:
        caption += " Dotted: accuracy of an undefended learner after flips that were found for each point."
    return ReportFigure.from_figure(name, caption, figure)


def _attacked_curve(points: AttackedPoints, radii: Sequence[int]) -> Curve:
    """Where the accuracy falls, as far as the picture reaches."""
    steps = {0, radii[-1], *points.attacks.flips.tolist()}
    at = sorted(step for step in steps if step <= radii[-1])
    return dict(zip(at, points.accuracy(at), strict=True))


def _what(learner: CertifiedLearner) -> str:
    return f"{learner.describe()} on {learner.features.describe()}"


def _doubts(methods: Mapping[str, CertifiedMethod]) -> str:
    """Which methods' certificates do not hold with certainty."""
    claims = {label or "this learner": method.learner.certainty().claim for label, method in methods.items()}
    return "".join(f" {label}: {claim}." for label, claim in claims.items() if claim != "proved")


def _labels(methods: Mapping[str, CertifiedMethod]) -> str:
    """What labels may be changed to, by method where they differ."""
    owners: dict[str, list[str]] = {}
    for label, method in methods.items():
        owners.setdefault(method.learner.promise().labels, []).append(label or "this learner")
    if len(owners) == 1:
        return next(iter(owners))
    told = [f"{', '.join(names)}: {labels}" for labels, names in owners.items()]
    return f"({'; '.join(told)})"


def _reaches(methods: Mapping[str, CertifiedMethod]) -> str:
    """How far the methods reach, each kind of reach once."""
    return "; ".join(dict.fromkeys(reach_of(method.learner.end_to_end) for method in methods.values()))
