"""The report's section on accuracy under attack."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lightning_poison.attacks import Attack
from lightning_poison.callbacks.accuracy.attacked_samples import AttackedSamples, interval
from lightning_poison.callbacks.accuracy.tables import (
    attack_table,
    detail_table,
    doubts,
    history_table,
    result_table,
)
from lightning_poison.functional.pixels import in_grey_levels
from lightning_poison.report import ReportFigure, ReportTable, Section

__all__ = ["attack_section"]

_DATA = {"val": "validation", "test": "test"}
_WORST = "worst case"


def attack_section(
    title: str,
    text: str,
    key: str,
    attacks: Mapping[str, Attack],
    latest: Sequence[AttackedSamples],
    history: Sequence[AttackedSamples],
    radii: Sequence[float],
    *,
    targeted: bool = False,
    remarks: Sequence[str] = (),
) -> Section:
    """Words, tables and curves of what one callback measured.

    Args:
        title: of the section.
        text: what the share means.
        key: the logged key without its first part, from which the pictures' names are made.
        attacks: by short name.
        latest: the last measurement of each split.
        history: those of ``fit``.
        radii: of the sweep; empty without one.
        targeted: whether the attacks have a target, so that the share at radius 0 isn't the natural accuracy.
        remarks: further sentences that a reader has to mind.
    """
    sentences = [*remarks, *(sentence for entry in latest for sentence in doubts(entry))]
    warnings = [f"Mind that {sentence}." for sentence in dict.fromkeys(sentences)]
    tables = [attack_table(attacks, stochastic=any(entry.stochastic for entry in latest)), result_table(latest)]
    details = detail_table(latest)
    if details is not None:
        tables.append(details)
    swept = [entry for entry in latest if entry.curve]
    tables += [_curve_table(entry, radii) for entry in swept]
    if len(history) > 1:
        tables.append(history_table(history))
    norm = next(iter(attacks.values())).norm or ""
    figures = tuple(_curve_figure(entry, radii, key, norm, targeted) for entry in swept)
    return Section(title, (text, *warnings), tuple(tables), figures)


def _series(entry: AttackedSamples) -> dict[str, tuple[int, ...]]:
    """Withstanding samples by curve: each attack, and the worst case of several."""
    return {_WORST: entry.curve, **entry.curves} if len(entry.curves) > 1 else dict(entry.curves)


def _curve_table(entry: AttackedSamples, radii: Sequence[float]) -> ReportTable:
    series = _series(entry)
    rows = []
    for place, radius in enumerate(radii):
        low, high = interval(entry.curve[place], entry.samples)
        shares = [f"{100 * counts[place] / entry.samples:.2f} %" for counts in series.values()]
        rows.append((f"{radius:.4g}", in_grey_levels(radius), *shares, f"{100 * low:.1f} to {100 * high:.1f} %"))
    names = tuple(series) if len(series) > 1 else ("adversarial accuracy",)
    last = "95 % interval (exact)" if len(series) == 1 else f"95 % interval (exact), {_WORST}"
    columns = ("eps, pixel units", "eps, grey levels", *names, last)
    return ReportTable(f"Accuracy against the radius, {_DATA[entry.split]} points", columns, tuple(rows))


def _curve_figure(entry: AttackedSamples, radii: Sequence[float], key: str, norm: str, targeted: bool) -> ReportFigure:
    from lightning_poison.plots import robustness_curve_figure

    series = _series(entry)
    figure = robustness_curve_figure(
        radii,
        {name: [count / entry.samples for count in counts] for name, counts in series.items()},
        intervals={name: [interval(count, entry.samples) for count in counts] for name, counts in series.items()},
        natural_accuracy=None if targeted else entry.correct / entry.samples,
        norm=norm,
        ylabel="not driven to the target" if targeted else "accuracy",
    )
    name = re.sub(r"[^A-Za-z0-9_-]", "-", f"robustness-curve-{entry.split}-{key}")
    share = "Share of the {} points not driven to the target" if targeted else "Accuracy on the {} points"
    caption = (
        f"{share.format(_DATA[entry.split])} against the radius within which the attacker may change a point; "
        "the band is the 95 % interval of the share."
    )
    return ReportFigure.from_figure(name, caption, figure)
